//! Formats: what a data format, a media type, a type identifier and an extension say about each other.
//!
//! The knowledge is data ([`Registry::shipped`] is `formats.toml`, [`Registry::extended`] adds an
//! application's own) and a file stores what was added to it. Records say their format, types and media type themselves, so
//! a later larder with other tables reads old ones as they were meant. Sources: the tables of the Liquers requirements (1.5 A, B, C) and IANA's
//! media type registry.
//!
//! Invariants of a [`Registry`]:
//! 1. A name (of a format or an alias) and an extension belong to one format each; a type to one entry.
//! 2. Every format has a media type and at least one type identifier, and every name that an entry refers to
//!    is there.
//! 3. The fallback is a format of the registry: inference always has an answer.
//! 4. [`Registry::parse`] of [`Registry::to_toml`] gives an equal registry.
//! 5. A verdict passes: its fields, checked again, give no other findings.

mod document;
mod error;
mod judge;
mod sniff;

use std::borrow::Cow;
use std::collections::HashMap;
use std::collections::hash_map::{DefaultHasher, Entry};
use std::fmt;
use std::hash::BuildHasherDefault;
use std::sync::LazyLock;

use document::{Document, FormatEntry, at_most};
pub use document::{REGISTRY_ENTRIES_MAX, REGISTRY_LEN_MAX, REGISTRY_NAME_LEN_MAX};
pub use error::{FormatError, RegistryError, Warning};
pub use judge::{Claim, Inferred, Strictness, Verdict};
use sniff::Magic;
pub use sniff::SNIFF_LEN;

const SHIPPED: &str = include_str!("formats.toml");

/// The longest qualifier of a format's name, in bytes.
const QUALIFIER_LEN_MAX: usize = 32;

/// Splits a format's name, `base[:qualifier]`, as in `csv:semicolon`.
///
/// The qualifier refines how the base is written; media type and accepted types are the base's. A base is of
/// `a-z`, `0-9`, `_`, `-`, `+` and `.`; a qualifier of anything but upper-case letters, spaces and controls,
/// so that it can name a delimiter (`csv:~`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct FormatName<'a> {
    whole: &'a str,
    base: &'a str,
    qualifier: Option<&'a str>,
}

impl<'a> FormatName<'a> {
    /// Parses a name; `None` if it is not well formed or longer than [`REGISTRY_NAME_LEN_MAX`].
    pub fn parse(whole: &'a str) -> Option<Self> {
        let (base, qualifier) = match whole.split_once(':') {
            Some((base, qualifier)) => (base, Some(qualifier)),
            None => (whole, None),
        };
        let qualifier_ok = qualifier.is_none_or(|q| {
            (1..=QUALIFIER_LEN_MAX).contains(&q.len())
                && !q.chars().any(|c| c.is_control() || c.is_whitespace() || c.is_uppercase())
        });
        let ok = whole.len() <= REGISTRY_NAME_LEN_MAX && document::is_base(base) && qualifier_ok;
        ok.then_some(Self { whole, base, qualifier })
    }

    /// Returns the whole name.
    pub fn as_str(&self) -> &'a str {
        self.whole
    }

    /// Returns the part before the first colon.
    pub fn base(&self) -> &'a str {
        self.base
    }

    /// Returns the part behind the first colon.
    pub fn qualifier(&self) -> Option<&'a str> {
        self.qualifier
    }
}

impl fmt::Display for FormatName<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.whole)
    }
}

/// Describes one format of a registry.
#[derive(Debug, Clone)]
pub struct Format {
    index: usize,
    name: String,
    aliases: Vec<String>,
    extensions: Vec<String>,
    media_type: String,
    media_aliases: Vec<String>,
    /// Never empty; the first is [`Format::default_type`].
    types: Vec<String>,
    default_type: String,
    text: bool,
    compressible: bool,
    has_magic: bool,
    sniffs_as: Vec<usize>,
}

impl Format {
    /// Returns the canonical name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns the name without its qualifier.
    pub fn base(&self) -> &str {
        self.name.split_once(':').map_or(self.name.as_str(), |(base, _)| base)
    }

    /// Returns the other names of the format.
    pub fn aliases(&self) -> &[String] {
        &self.aliases
    }

    /// Returns the extensions that stand for the format, in lower case.
    pub fn extensions(&self) -> &[String] {
        &self.extensions
    }

    /// Returns the canonical media type: IANA's, where it has one.
    pub fn media_type(&self) -> &str {
        &self.media_type
    }

    /// Returns the media types that are accepted beside the canonical one.
    pub fn media_aliases(&self) -> &[String] {
        &self.media_aliases
    }

    /// Returns the type identifiers that the format can hold.
    pub fn types(&self) -> &[String] {
        &self.types
    }

    /// Returns the type identifier that is inferred when none is given.
    pub fn default_type(&self) -> &str {
        &self.default_type
    }

    /// Tells whether the format is a text.
    pub fn is_text(&self) -> bool {
        self.text
    }

    /// Tells whether payloads of this format usually shrink under zstd.
    pub fn is_compressible(&self) -> bool {
        self.compressible
    }

    /// Tells whether a media type is the format's or one of its aliases; case and parameters
    /// (`; charset=utf-8`) do not count.
    pub fn accepts_media_type(&self, media_type: &str) -> bool {
        let given = essence(media_type);
        given.eq_ignore_ascii_case(&self.media_type)
            || self.media_aliases.iter().any(|alias| given.eq_ignore_ascii_case(alias))
    }

    /// Tells whether the format can hold a type.
    pub fn accepts_type(&self, type_identifier: &str) -> bool {
        self.types.iter().any(|accepted| accepted == type_identifier)
    }

    /// Tells whether bytes of the one format may be called the other: they are the same but for the
    /// qualifier, or one is made of the other (a docx is a zip).
    fn is_compatible_with(&self, other: &Self) -> bool {
        self.base() == other.base()
            || self.sniffs_as.contains(&other.index)
            || other.sniffs_as.contains(&self.index)
    }
}

/// Returns a media type without its parameters.
fn essence(media_type: &str) -> &str {
    media_type.split(';').next().unwrap_or_default().trim()
}

/// Returns the text in lower case, borrowed if it is already.
fn lowered(text: &str) -> Cow<'_, str> {
    if text.bytes().any(|c| c.is_ascii_uppercase()) {
        Cow::Owned(text.to_ascii_lowercase())
    } else {
        Cow::Borrowed(text)
    }
}

#[derive(Debug, Clone)]
struct KnownType {
    name: String,
    default_format: Option<usize>,
    any_format: bool,
}

/// Maps names to positions. Hashed without a random seed: names come from a document that its owner wrote, and
/// looking up hostile ones inserts nothing.
#[derive(Debug, Clone, Default)]
struct Table(HashMap<Box<str>, usize, BuildHasherDefault<DefaultHasher>>);

impl Table {
    /// Takes names that have one owner each; the error is the first that has two, with both.
    fn unique(pairs: Vec<(Box<str>, usize)>) -> Result<Self, (Box<str>, usize, usize)> {
        let mut table = Self::default();
        for (name, index) in pairs {
            match table.0.entry(name) {
                Entry::Vacant(free) => free.insert(index),
                Entry::Occupied(taken) => return Err((taken.key().clone(), *taken.get(), index)),
            };
        }
        Ok(table)
    }

    /// Takes names of which the first owner counts.
    fn first_wins(pairs: Vec<(Box<str>, usize)>) -> Self {
        let mut table = Self::default();
        for (name, index) in pairs {
            table.0.entry(name).or_insert(index);
        }
        table
    }

    fn get(&self, name: &str) -> Option<usize> {
        self.0.get(name).copied()
    }
}

/// Knows formats, media types, type identifiers and extensions, and judges what a write says about itself.
///
/// Immutable: [`Registry::extended`] gives a new one.
#[derive(Debug, Clone)]
pub struct Registry {
    formats: Vec<Format>,
    fallback: Format,
    types: Vec<KnownType>,
    names: Table,
    extensions: Table,
    media_types: Table,
    type_names: Table,
    magics: Vec<(Magic, usize)>,
    /// Positions in `magics`, by the first byte that they fix.
    magics_by_first_byte: Vec<Vec<usize>>,
    /// Positions in `magics` of those that fix no first byte.
    magics_elsewhere: Vec<usize>,
    toml: String,
}

impl PartialEq for Registry {
    fn eq(&self, other: &Self) -> bool {
        self.toml == other.toml
    }
}

impl Eq for Registry {}

static SHIPPED_REGISTRY: LazyLock<Registry> =
    LazyLock::new(|| Registry::parse(SHIPPED).unwrap_or_else(|_| Registry::bare()));

impl Registry {
    /// Returns the registry that larder ships, parsed once.
    pub fn shipped() -> &'static Self {
        &SHIPPED_REGISTRY
    }

    /// Parses a whole registry, as [`Registry::to_toml`] writes it.
    ///
    /// # Errors
    /// [`RegistryError`] names the line, the field and the remedy. Any text is safe to pass: sizes are
    /// bounded by [`REGISTRY_LEN_MAX`], [`REGISTRY_ENTRIES_MAX`] and [`REGISTRY_NAME_LEN_MAX`].
    pub fn parse(text: &str) -> Result<Self, RegistryError> {
        Self::build(&Document::empty().extended(text, false)?)
    }

    /// Returns this registry with an application's formats and types.
    ///
    /// An entry whose name is new is added; one whose name is there replaces the fields that it has.
    ///
    /// # Errors
    /// As [`Registry::parse`]; also when a new name or extension belongs to another format already.
    pub fn extended(&self, text: &str) -> Result<Self, RegistryError> {
        Self::build(&Document::empty().extended(&self.toml, false)?.extended(text, false)?)
    }

    /// Returns this registry with an application's formats and types, which were accepted by an earlier one: aliases and
    /// extensions that formats here have got since are still the application's. An alias that is the name of a format here now
    /// is that format's.
    ///
    /// # Errors
    /// As [`Registry::parse`].
    pub fn extended_by_accepted(&self, text: &str) -> Result<Self, RegistryError> {
        match self.extended(text) {
            Err(RegistryError::Duplicate { .. }) => {
                Self::build(&Document::empty().extended(&self.toml, false)?.extended(text, true)?)
            }
            extended => extended,
        }
    }

    /// Returns the whole registry as a document that [`Registry::parse`] reads.
    pub fn to_toml(&self) -> &str {
        &self.toml
    }

    /// Returns what is left if the shipped table could not be read, which a test rules out.
    fn bare() -> Self {
        let fallback = Format {
            index: 0,
            name: "bin".to_owned(),
            aliases: Vec::new(),
            extensions: Vec::new(),
            media_type: "application/octet-stream".to_owned(),
            media_aliases: Vec::new(),
            types: vec!["bytes".to_owned()],
            default_type: "bytes".to_owned(),
            text: false,
            compressible: true,
            has_magic: false,
            sniffs_as: Vec::new(),
        };
        Self {
            formats: vec![fallback.clone()],
            fallback,
            types: Vec::new(),
            names: Table::default(),
            extensions: Table::default(),
            media_types: Table::default(),
            type_names: Table::default(),
            magics: Vec::new(),
            magics_by_first_byte: Vec::new(),
            magics_elsewhere: Vec::new(),
            toml: String::new(),
        }
    }

    fn build(document: &Document) -> Result<Self, RegistryError> {
        let entries = &document.format;
        let lines: Vec<usize> = entries.iter().map(|entry| entry.line).collect();
        let mut formats = Vec::with_capacity(entries.len());
        for (index, entry) in entries.iter().enumerate() {
            formats.push(whole_format(index, entry, entries)?);
        }

        let owner = |index: usize| entries.get(index).map(|e| e.name.clone()).unwrap_or_default();
        let line = |index: usize| lines.get(index).copied().unwrap_or_default();
        let duplicate = |field| {
            move |(name, a, b): (Box<str>, usize, usize)| {
                let line = line(a).max(line(b));
                RegistryError::Duplicate { line, field, name: name.into(), first: owner(a), second: owner(b) }
            }
        };
        let pairs = |of: fn(&Format) -> &[String]| {
            let pair = |format: &Format, name: &String| (name.as_str().into(), format.index);
            formats.iter().flat_map(|f| of(f).iter().map(move |name| pair(f, name))).collect::<Vec<_>>()
        };
        let mut own_names: Vec<(Box<str>, usize)> =
            formats.iter().map(|f| (f.name.as_str().into(), f.index)).collect();
        own_names.extend(pairs(Format::aliases));
        let names = Table::unique(own_names).map_err(duplicate("name or alias"))?;
        let extensions = Table::unique(pairs(Format::extensions)).map_err(duplicate("extension"))?;
        let mut media: Vec<(Box<str>, usize)> =
            formats.iter().map(|f| (f.media_type.as_str().into(), f.index)).collect();
        media.extend(pairs(Format::media_aliases));
        let media_types = Table::first_wins(media);

        let resolve = |field, line, name: &str| {
            names.get(name).ok_or_else(|| RegistryError::Unresolved { line, field, got: error::shown(name) })
        };
        let mut types = Vec::with_capacity(document.types.len());
        for entry in &document.types {
            let default_format = match &entry.default_format {
                Some(name) => Some(resolve("default_format", entry.line, name)?),
                None => None,
            };
            let any_format = entry.any_format.unwrap_or_default();
            types.push(KnownType { name: entry.name.clone(), default_format, any_format });
        }
        let type_names = Table::first_wins(
            types.iter().enumerate().map(|(index, known)| (known.name.as_str().into(), index)).collect(),
        );
        let mut magics = Vec::new();
        for (format, entry) in formats.iter_mut().zip(entries) {
            if let Some(got) = format.types.iter().find(|name| type_names.get(name).is_none()) {
                let got = got.clone();
                return Err(RegistryError::Unresolved { line: entry.line, field: "types", got });
            }
            let sniffs_as = sniffs_as_of(entry, entries);
            for name in sniffs_as {
                format.sniffs_as.push(resolve("sniffs_as", entry.line, name)?);
            }
            for pattern in entry.magic.iter().flatten() {
                let magic = Magic::parse(pattern).map_err(|reason| RegistryError::Magic {
                    line: entry.line,
                    got: error::shown(pattern),
                    reason,
                    window: SNIFF_LEN,
                })?;
                magics.push((magic, format.index));
            }
        }
        let mut magics_by_first_byte = vec![Vec::new(); 256];
        let mut magics_elsewhere = Vec::new();
        for (position, (magic, _)) in magics.iter().enumerate() {
            let bucket = magic.first_byte().and_then(|byte| magics_by_first_byte.get_mut(usize::from(byte)));
            bucket.unwrap_or(&mut magics_elsewhere).push(position);
        }

        let fallback = resolve("fallback", 0, &document.fallback)?;
        let Some(fallback) = formats.get(fallback).cloned() else {
            return Err(RegistryError::Unresolved { line: 0, field: "fallback", got: String::new() });
        };
        let toml = toml::to_string(document)
            .map_err(|error| RegistryError::Syntax { line: 0, message: error.to_string() })?;
        // What is written must be read again.
        at_most("bytes of the whole registry", 0, toml.len(), REGISTRY_LEN_MAX)?;
        Ok(Self {
            formats,
            fallback,
            types,
            names,
            extensions,
            media_types,
            type_names,
            magics,
            magics_by_first_byte,
            magics_elsewhere,
            toml,
        })
    }

    /// Returns all formats, in the document's order.
    pub fn formats(&self) -> impl Iterator<Item = &Format> {
        self.formats.iter()
    }

    /// Returns all known type identifiers, in the document's order.
    pub fn type_identifiers(&self) -> impl Iterator<Item = &str> {
        self.types.iter().map(|known| known.name.as_str())
    }

    /// Returns the format that stands where nothing is known: `bin` as shipped.
    pub fn fallback(&self) -> &Format {
        &self.fallback
    }

    /// Returns the format of a name or alias, exactly as written; a qualifier that has no entry of its own
    /// gives the base.
    pub fn canonical(&self, data_format: &str) -> Option<&Format> {
        self.lookup(data_format).map(|(format, _)| format)
    }

    /// Returns the name under which a format is stored: aliases replaced, the qualifier kept.
    pub fn canonical_name<'a>(&'a self, data_format: &'a str) -> Option<Cow<'a, str>> {
        self.lookup(data_format).map(|(_, name)| name)
    }

    fn lookup<'r: 'n, 'n>(&'r self, data_format: &'n str) -> Option<(&'r Format, Cow<'n, str>)> {
        if let Some(format) = self.named(data_format) {
            return Some((format, Cow::Borrowed(&format.name)));
        }
        let parsed = FormatName::parse(data_format)?;
        let qualifier = parsed.qualifier()?;
        let format = self.named(parsed.base())?;
        if format.name == parsed.base() {
            return Some((format, Cow::Borrowed(data_format)));
        }
        // An alias of a base: what it stands for may have an entry of its own (csv_comma:tab).
        let whole = format!("{}:{qualifier}", format.name);
        if format.name.contains(':') || FormatName::parse(&whole).is_none() {
            return None;
        }
        Some(match self.named(&whole) {
            Some(qualified) => (qualified, Cow::Borrowed(&qualified.name)),
            None => (format, Cow::Owned(whole)),
        })
    }

    fn named(&self, name: &str) -> Option<&Format> {
        self.formats.get(self.names.get(name)?)
    }

    /// Returns the format of an extension (without its dot), whatever its case.
    pub fn format_of_extension(&self, extension: &str) -> Option<&Format> {
        if extension.len() > REGISTRY_NAME_LEN_MAX {
            return None;
        }
        self.formats.get(self.extensions.get(&lowered(extension))?)
    }

    /// Returns the format that a media type alone stands for: the first to have it as its own, else the
    /// first to have it as an alias; case and parameters do not count.
    pub fn format_of_media_type(&self, media_type: &str) -> Option<&Format> {
        let given = essence(media_type);
        if !document::is_media_type(given) {
            return None;
        }
        self.formats.get(self.media_types.get(&lowered(given))?)
    }

    /// Returns the canonical media type of a format.
    pub fn media_type_of(&self, data_format: &str) -> Option<&str> {
        self.canonical(data_format).map(Format::media_type)
    }

    /// Returns the type identifier that is inferred for a format.
    pub fn default_type_of(&self, data_format: &str) -> Option<&str> {
        self.canonical(data_format).map(Format::default_type)
    }

    /// Returns the format in which a type is usually written (table B), if it has one.
    pub fn default_format_of(&self, type_identifier: &str) -> Option<&Format> {
        self.formats.get(self.known_type(type_identifier)?.default_format?)
    }

    /// Tells whether payloads of a format usually shrink under zstd; of an unknown one, what the fallback
    /// says.
    pub fn is_compressible(&self, data_format: &str) -> bool {
        self.canonical(data_format).unwrap_or(&self.fallback).compressible
    }

    /// Returns the format whose magic number the bytes have: a hint, from the first [`SNIFF_LEN`] bytes.
    ///
    /// A container is named, not what is in it: a docx gives `zip`.
    pub fn sniff(&self, head: &[u8]) -> Option<&Format> {
        self.sniff_with_strength(head).map(|(format, _)| format)
    }

    /// As [`Registry::sniff`], with the number of bytes that matched.
    fn sniff_with_strength(&self, head: &[u8]) -> Option<(&Format, usize)> {
        let first = usize::from(*head.first()?);
        let head = head.get(..SNIFF_LEN).unwrap_or(head);
        let here = self.magics_by_first_byte.get(first).map_or(&[][..], Vec::as_slice);
        let mut best: Option<(usize, usize, usize)> = None;
        for &position in here.iter().chain(&self.magics_elsewhere) {
            let Some((magic, format)) = self.magics.get(position) else { continue };
            // The stronger wins, then the earlier in the table, whichever list it stands in.
            let better = best.is_none_or(|(strength, earlier, _)| {
                magic.strength() > strength || (magic.strength() == strength && position < earlier)
            });
            if better && magic.matches(head) {
                best = Some((magic.strength(), position, *format));
            }
        }
        let (strength, _, format) = best?;
        Some((self.formats.get(format)?, strength))
    }

    fn known_type(&self, type_identifier: &str) -> Option<&KnownType> {
        self.types.get(self.type_names.get(type_identifier)?)
    }
}

/// Returns the base's entry of a qualified one.
fn base_of<'a>(entry: &FormatEntry, entries: &'a [FormatEntry]) -> Option<&'a FormatEntry> {
    let (base, _) = entry.name.split_once(':')?;
    entries.iter().find(|other| other.name == base)
}

fn sniffs_as_of<'a>(entry: &'a FormatEntry, entries: &'a [FormatEntry]) -> &'a [String] {
    let inherited = || base_of(entry, entries).and_then(|base| base.sniffs_as.as_deref());
    entry.sniffs_as.as_deref().or_else(inherited).unwrap_or_default()
}

/// Fills in what an entry leaves out; names that it refers to are resolved later.
fn whole_format(index: usize, entry: &FormatEntry, entries: &[FormatEntry]) -> Result<Format, RegistryError> {
    let base = base_of(entry, entries);
    let name = entry.name.clone();
    if base.is_none() && name.contains(':') {
        return Err(RegistryError::Unresolved { line: entry.line, field: "name", got: name });
    }
    let Some(media_type) = entry.media_type.clone().or_else(|| base?.media_type.clone()) else {
        return Err(RegistryError::Incomplete { line: entry.line, format: name, field: "media_type" });
    };
    let media_aliases =
        entry.media_aliases.clone().or_else(|| base?.media_aliases.clone()).unwrap_or_default();
    let text = entry.text.or_else(|| base?.text).unwrap_or_else(|| media_type.starts_with("text/"));
    let mut types = entry.types.clone().or_else(|| base?.types.clone()).unwrap_or_default();
    if types.is_empty() && !text {
        types.push("bytes".to_owned());
    }
    if (text || media_type.starts_with("text/")) && !types.iter().any(|name| name == "text") {
        types.push("text".to_owned());
    }
    let aliases = entry.aliases.clone().unwrap_or_default();
    let extensions = entry.extensions();
    Ok(Format {
        index,
        default_type: types.first().cloned().unwrap_or_default(),
        compressible: entry.compressible.or_else(|| base?.compressible).unwrap_or(text),
        has_magic: entry.magic.as_ref().is_some_and(|list| !list.is_empty()),
        sniffs_as: Vec::new(),
        name,
        aliases,
        extensions,
        media_type,
        media_aliases,
        types,
        text,
    })
}
