//! The registry as a TOML document: what a file stores, and what an application extends.
//!
//! ```toml
//! version = 1
//! fallback = "bin"                        # what a payload is of which nothing is known
//!
//! [[format]]
//! name = "csv"                            # base[:qualifier]
//! aliases = ["csv_comma", "csv:comma"]    # other names of the same format
//! extensions = ["csv"]                    # absent: the name and the aliases, without qualified ones
//! media_type = "text/csv"                 # the canonical one
//! media_aliases = ["application/csv"]     # accepted without a warning
//! types = ["text", "polars_dataframe"]    # accepted; the first is inferred. Absent: text or bytes
//! text = true                             # absent: whether the media type is text/*
//! compressible = true                     # usually shrinks under zstd; absent: whether it is text
//! magic = ["257:7573746172"]              # [OFFSET:]HEX, ?? any byte, * any gap
//! sniffs_as = ["zip"]                     # formats whose magic number this one's payloads may have
//!
//! [[type]]
//! name = "image"
//! default_format = "png"
//! any_format = false                      # true: fits every format
//! ```
//!
//! A format of text accepts the type `text` whatever its list says. A qualified entry takes what it leaves
//! out from its base. In an extension, an entry whose name is there already replaces only the fields that it
//! has.

use std::collections::HashSet;
use std::ops::Range;

use serde::{Deserialize, Serialize};
use toml::Spanned;

use super::error::{RegistryError, shown};
use super::sniff::{Magic, SNIFF_LEN};

/// The layout that is read and written.
pub(super) const VERSION: u32 = 1;
/// The longest document, in bytes.
pub const REGISTRY_LEN_MAX: usize = 256 * 1024;
/// The most formats, and the most types, that a registry holds.
pub const REGISTRY_ENTRIES_MAX: usize = 1024;
/// The longest name of a format, type or extension, in bytes.
pub const REGISTRY_NAME_LEN_MAX: usize = 64;
/// The longest media type, in bytes: RFC 6838 allows 127 on either side of the slash.
const MEDIA_LEN_MAX: usize = 255;
/// The most elements in any list of one entry.
const LIST_LEN_MAX: usize = 64;

/// A whole registry, entry by entry, as it was written.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) fallback: String,
    pub(super) format: Vec<FormatEntry>,
    #[serde(rename = "type")]
    pub(super) types: Vec<TypeEntry>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct FormatEntry {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) aliases: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) extensions: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) media_aliases: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) types: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) text: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) compressible: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) magic: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) sniffs_as: Option<Vec<String>>,
    /// Where the entry stands in the document that brought it; 0 in the one that was extended.
    #[serde(skip)]
    pub(super) line: usize,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct TypeEntry {
    pub(super) name: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) default_format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) any_format: Option<bool>,
    #[serde(skip)]
    pub(super) line: usize,
}

/// What is read first: the rest has the shape that the version says.
#[derive(Deserialize)]
struct Head {
    version: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Raw {
    #[serde(rename = "version")]
    _version: u32,
    fallback: Option<String>,
    #[serde(default)]
    format: Vec<Spanned<FormatEntry>>,
    #[serde(default, rename = "type")]
    types: Vec<Spanned<TypeEntry>>,
}

impl Document {
    /// Returns a registry without entries, for a whole document to extend.
    pub(super) fn empty() -> Self {
        Self { version: VERSION, fallback: String::new(), format: Vec::new(), types: Vec::new() }
    }

    /// Returns this document with the entries of another one added, each checked by itself. Where both claim an alias or an
    /// extension, it is the other's, if this one yields, or else there are two, which is an error for whoever builds it.
    pub(super) fn extended(&self, text: &str, yields: bool) -> Result<Self, RegistryError> {
        at_most("bytes of the document", 0, text.len(), REGISTRY_LEN_MAX)?;
        let head: Head = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        if head.version != VERSION {
            return Err(RegistryError::Version { got: head.version, supported: VERSION });
        }
        let raw: Raw = toml::from_str(text).map_err(|error| syntax(text, &error))?;
        let (mut formats, mut types) = (Vec::new(), Vec::new());
        let ends: Vec<usize> = text.match_indices('\n').map(|(at, _)| at).collect();
        let line_of = |span: Range<usize>| 1 + ends.partition_point(|&end| end < span.start);
        for entry in raw.format {
            let line = line_of(entry.span());
            formats.push(FormatEntry { line, ..entry.into_inner() });
        }
        for entry in raw.types {
            let line = line_of(entry.span());
            types.push(TypeEntry { line, ..entry.into_inner() });
        }
        at_most("formats", 0, formats.len(), REGISTRY_ENTRIES_MAX)?;
        at_most("types", 0, types.len(), REGISTRY_ENTRIES_MAX)?;
        formats.iter().try_for_each(FormatEntry::check)?;
        types.iter().try_for_each(TypeEntry::check)?;

        let mut whole = self.clone();
        whole.format.iter_mut().for_each(|entry| entry.line = 0);
        whole.types.iter_mut().for_each(|entry| entry.line = 0);
        if let Some(fallback) = raw.fallback {
            whole.fallback = fallback;
        }
        if yields {
            whole.yield_before(&mut formats);
        }
        for new in formats {
            match whole.format.iter_mut().find(|old| old.name == new.name) {
                Some(old) if old.line > 0 => return Err(twice("name", new.line, &new.name)),
                Some(old) => old.overlay(new),
                None => whole.format.push(new),
            }
        }
        for new in types {
            match whole.types.iter_mut().find(|old| old.name == new.name) {
                Some(old) if old.line > 0 => return Err(twice("type", new.line, &new.name)),
                Some(old) => *old = new,
                None => whole.types.push(new),
            }
        }
        if yields {
            whole.yield_after();
        }
        at_most("formats", 0, whole.format.len(), REGISTRY_ENTRIES_MAX)?;
        at_most("types", 0, whole.types.len(), REGISTRY_ENTRIES_MAX)?;
        Ok(whole)
    }

    /// Gives up the aliases and extensions that others claim among those that are to be added. An alias that is the name of a
    /// format here is nobody else's.
    fn yield_before(&mut self, new: &mut [FormatEntry]) {
        let names: HashSet<String> = self.format.iter().map(|old| old.name.clone()).collect();
        for aliases in new.iter_mut().filter_map(|entry| entry.aliases.as_mut()) {
            aliases.retain(|alias| !names.contains(alias));
        }
        for old in &mut self.format {
            let (aliases, extensions) = claimed(new.iter().filter(|entry| entry.name != old.name));
            old.aliases.iter_mut().for_each(|own| own.retain(|alias| !aliases.contains(alias)));
            old.extensions.iter_mut().for_each(|own| own.retain(|extension| !extensions.contains(extension)));
        }
    }

    /// Gives up the extensions that nothing says and that were added to others.
    fn yield_after(&mut self) {
        let (_, extensions) = claimed(self.format.iter().filter(|entry| entry.line > 0));
        for old in self.format.iter_mut().filter(|entry| entry.line == 0) {
            let own = old.extensions();
            if own.iter().any(|extension| extensions.contains(extension)) {
                let left = own.into_iter().filter(|extension| !extensions.contains(extension));
                old.extensions = Some(left.collect());
            }
        }
    }
}

/// Gives the names, aliases among them, and the extensions of some formats.
fn claimed<'e>(entries: impl Iterator<Item = &'e FormatEntry>) -> (HashSet<String>, HashSet<String>) {
    let (mut names, mut extensions) = (HashSet::new(), HashSet::new());
    for entry in entries {
        names.insert(entry.name.clone());
        names.extend(entry.aliases.iter().flatten().cloned());
        extensions.extend(entry.extensions());
    }
    (names, extensions)
}

impl FormatEntry {
    /// The extensions: if nothing is said of them, its names are.
    pub(super) fn extensions(&self) -> Vec<String> {
        let names = || std::iter::once(&self.name).chain(self.aliases.iter().flatten());
        let plain = || names().filter(|name| !name.contains(':')).cloned().collect();
        self.extensions.clone().unwrap_or_else(plain)
    }

    fn overlay(&mut self, new: Self) {
        fn put<T>(old: &mut Option<T>, new: Option<T>) {
            if new.is_some() {
                *old = new;
            }
        }
        let Self {
            name: _,
            aliases,
            extensions,
            media_type,
            media_aliases,
            types,
            text,
            compressible,
            magic,
            sniffs_as,
            line,
        } = new;
        put(&mut self.aliases, aliases);
        put(&mut self.extensions, extensions);
        put(&mut self.media_type, media_type);
        put(&mut self.media_aliases, media_aliases);
        put(&mut self.types, types);
        put(&mut self.text, text);
        put(&mut self.compressible, compressible);
        put(&mut self.magic, magic);
        put(&mut self.sniffs_as, sniffs_as);
        self.line = line;
    }

    fn check(&self) -> Result<(), RegistryError> {
        let line = self.line;
        format_name("name", line, &self.name)?;
        for (what, list) in [
            ("aliases", &self.aliases),
            ("extensions", &self.extensions),
            ("media_aliases", &self.media_aliases),
            ("types", &self.types),
            ("magic", &self.magic),
            ("sniffs_as", &self.sniffs_as),
        ] {
            at_most(what, line, list.as_ref().map_or(0, Vec::len), LIST_LEN_MAX)?;
        }
        each(&self.aliases, |name| format_name("aliases", line, name))?;
        each(&self.extensions, |name| {
            named(
                is_base(name),
                "extensions",
                line,
                "a letter or digit, then a-z, 0-9, _ - + ., at most 64, no dot in front",
                name,
            )
        })?;
        each(&self.media_aliases, |name| media_type("media_aliases", line, name))?;
        if let Some(name) = &self.media_type {
            media_type("media_type", line, name)?;
        }
        each(&self.types, |name| type_name("types", line, name))?;
        if self.types.as_ref().is_some_and(Vec::is_empty) {
            return Err(RegistryError::Incomplete { line, format: self.name.clone(), field: "types" });
        }
        each(&self.magic, |pattern| {
            Magic::parse(pattern).map(drop).map_err(|reason| RegistryError::Magic {
                line,
                got: shown(pattern),
                reason,
                window: SNIFF_LEN,
            })
        })?;
        each(&self.sniffs_as, |name| format_name("sniffs_as", line, name))
    }
}

impl TypeEntry {
    fn check(&self) -> Result<(), RegistryError> {
        type_name("type", self.line, &self.name)?;
        self.default_format.iter().try_for_each(|name| format_name("default_format", self.line, name))
    }
}

fn each(
    list: &Option<Vec<String>>,
    check: impl FnMut(&String) -> Result<(), RegistryError>,
) -> Result<(), RegistryError> {
    list.iter().flatten().try_for_each(check)
}

pub(super) fn at_most(
    what: &'static str,
    line: usize,
    got: usize,
    limit: usize,
) -> Result<(), RegistryError> {
    if got > limit { Err(RegistryError::TooMuch { line, what, limit, got }) } else { Ok(()) }
}

fn named(
    ok: bool,
    field: &'static str,
    line: usize,
    expected: &'static str,
    got: &str,
) -> Result<(), RegistryError> {
    if ok { Ok(()) } else { Err(RegistryError::Name { line, field, expected, got: shown(got) }) }
}

fn format_name(field: &'static str, line: usize, name: &str) -> Result<(), RegistryError> {
    let ok = super::FormatName::parse(name).is_some();
    named(ok, field, line, "base[:qualifier], lower-case, of at most 64 bytes", name)
}

fn type_name(field: &'static str, line: usize, name: &str) -> Result<(), RegistryError> {
    let ok = (1..=REGISTRY_NAME_LEN_MAX).contains(&name.len()) && name.bytes().all(|c| c.is_ascii_graphic());
    named(ok, field, line, "1 to 64 visible ASCII characters", name)
}

fn media_type(field: &'static str, line: usize, name: &str) -> Result<(), RegistryError> {
    let ok = is_media_type(name) && !name.bytes().any(|c| c.is_ascii_uppercase());
    named(ok, field, line, "a lower-case type/subtype without parameters (RFC 6838)", name)
}

/// Tells whether a name can be a format's base, or an extension.
pub(super) fn is_base(name: &str) -> bool {
    name.len() <= REGISTRY_NAME_LEN_MAX
        && name.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
        && name.bytes().all(|c| matches!(c, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'+' | b'.'))
}

/// Tells whether a text is `type/subtype` by the grammar of RFC 6838.
pub(super) fn is_media_type(name: &str) -> bool {
    let part = |part: &str| {
        part.bytes().next().is_some_and(|c| c.is_ascii_alphanumeric())
            && part.bytes().all(|c| c.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&c))
    };
    name.len() <= MEDIA_LEN_MAX && name.split_once('/').is_some_and(|(top, sub)| part(top) && part(sub))
}

fn twice(field: &'static str, line: usize, name: &str) -> RegistryError {
    let name = name.to_owned();
    RegistryError::Duplicate { line, field, first: name.clone(), second: name.clone(), name }
}

fn syntax(text: &str, error: &toml::de::Error) -> RegistryError {
    let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
    let line = 1 + before.matches('\n').count();
    RegistryError::Syntax { line, message: shown_line(error.message()) }
}

/// Returns a parser's message on one line; it may repeat the document, whose length it must not have.
fn shown_line(message: &str) -> String {
    const MESSAGE_MAX: usize = 400;
    message.chars().take(MESSAGE_MAX).map(|c| if c.is_control() { ' ' } else { c }).collect()
}
