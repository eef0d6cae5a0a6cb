//! Limits: how large, how many, how strict, by key pattern. What a document has is at [`Limits`].

use std::fmt::{self, Write as _};

use crate::pattern::{Pattern, Trie};
use crate::policy::document::{Document, Item, Table, quoted, write_list};
use crate::policy::{RulesError, RulesErrorKind};
use crate::record::Micros;
use crate::registry::Strictness;
use crate::retention::parse_age;

/// The most `[[limit]]` tables, and the most `[[strictness]]` tables, that a document may have.
pub const MAX_LIMITS: usize = 10_000;

/// A number of bytes: `10 MiB` in a document, `14.2 MiB` to a reader.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const UNITS: [(&str, u64); 6] = [
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("KB", 1_000),
];
const EXPECTED_SIZE: &str =
    "a whole number of bytes as an integer or like \"10 MiB\" (B, KB, MB, GB, KiB, MiB, GiB)";

impl ByteSize {
    /// Parses a number and a unit: `10 MiB`, `1.5GiB`, `500 B`, `500`. `None` if it is not one, is no whole number
    /// of bytes or passes 2^64 - 1.
    pub fn parse(text: &str) -> Option<Self> {
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit = text.strip_prefix(digits)?;
        let number = digits.strip_suffix(' ').unwrap_or(digits);
        let unit = match unit {
            "" if number.len() == digits.len() => 1,
            "B" => 1,
            _ => UNITS.iter().find(|(name, _)| *name == unit)?.1,
        };
        let (whole, fraction) = match number.split_once('.') {
            Some((whole, fraction)) if (1..=9).contains(&fraction.len()) => (whole, fraction),
            Some(_) => return None,
            None => (number, ""),
        };
        let is_number = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 20 || !is_number(whole) || !is_number(fraction) {
            return None;
        }
        let scale = fraction.bytes().fold(1_u128, |scale, _| scale * 10);
        let mantissa: u128 = format!("{whole}{fraction}").parse().ok()?;
        let scaled = mantissa.checked_mul(u128::from(unit))?;
        if scaled % scale != 0 {
            return None;
        }
        u64::try_from(scaled / scale).ok().map(Self)
    }

    /// Writes it so that [`ByteSize::parse`] gives it back: in the largest binary unit that divides it.
    pub fn to_exact(self) -> String {
        match UNITS.iter().take(3).find(|(_, unit)| self.0 != 0 && self.0.is_multiple_of(*unit)) {
            Some((name, unit)) => format!("{} {name}", self.0 / unit),
            None => format!("{} B", self.0),
        }
    }
}

/// One decimal of the largest binary unit that it reaches, rounded; none where it is whole.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let tenths = |unit: u64| (u128::from(self.0) * 10 + u128::from(unit) / 2) / u128::from(unit);
        // What would be 1024 of a unit when rounded is 1 of the next.
        match UNITS.iter().take(3).find(|(_, unit)| tenths(unit >> 10) >= 10_240) {
            Some((name, unit)) => match (tenths(*unit) / 10, tenths(*unit) % 10) {
                (whole, 0) => write!(f, "{whole} {name}"),
                (whole, tenth) => write!(f, "{whole}.{tenth} {name}"),
            },
            None => write!(f, "{} B", self.0),
        }
    }
}

/// What a payload under some key may have, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limit<'l> {
    /// The most bytes.
    pub bytes: u64,
    /// What decided.
    pub by: LimitedBy<'l>,
}

impl Limit<'_> {
    /// Whether a payload of this size is within it.
    pub fn allows(&self, size: u64) -> bool {
        size <= self.bytes
    }
}

/// What decided a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum LimitedBy<'l> {
    /// A `[[limit]]`.
    Limit {
        /// Its place in the document, from 1.
        number: usize,
        /// The pattern that matched.
        pattern: &'l Pattern,
    },
    /// The document's `max_binary_size`, or its default.
    Default,
}

impl fmt::Display for LimitedBy<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Limit { number, pattern } => write!(f, "limit {number} on \"{pattern}\""),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// How much of the history of a key is kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub struct HistoryLimit {
    /// How many generations, beside the one that is there; nothing, if that is not limited.
    pub generations: Option<u64>,
    /// For how long, in microseconds; nothing, if that is not limited.
    pub age_max: Option<Micros>,
}

/// A limits document, parsed and compiled.
///
/// A limits document is TOML; every field may be left out:
///
/// ```toml
/// max_binary_size = "1 GiB"        # of a payload, where no [[limit]] matches
/// max_metadata_size = "1 MiB"      # of a record's metadata
/// max_tags = 64                    # on one record
/// max_tag_length = "128 B"
/// max_batch_bytes = "64 MiB"       # of one batch of edits
/// max_batch_count = 100000         # edits in one batch
/// max_total_size = "100 GiB"       # of all payloads of assets together, before compression; not limited without it
/// [[limit]]
/// on = "users/*/uploads/**"        # one pattern or a list
/// max_binary_size = "10 MiB"
/// [[strictness]]
/// on = "incoming/**"
/// level = "strict"                 # off, warn (where nothing matches) or strict
/// [[history]]
/// on = "reports/**"                # what payloads were before they changed is kept here, and nowhere else
/// generations = 5                  # this many, or
/// max_age = "30 d"                 # this long (s, min, h, d); or both
/// ```
///
/// Of several entries that match a key the most specific decides ([`Pattern::cmp_specificity`]), be it larger or
/// smaller; of equally specific ones the smaller limit, the stricter level. The order in the document means nothing.
///
/// ```
/// use larder_format::Limits;
///
/// let limits = Limits::parse(r#"
///     max_binary_size = "1 MiB"
///     [[limit]]
///     on = "img/**"
///     max_binary_size = "10 MiB"
/// "#)?;
/// assert!(limits.max_binary_size(b"img\0a\0").allows(5 << 20));
/// assert!(!limits.max_binary_size(b"doc\0a\0").allows(5 << 20));
/// # Ok::<(), larder_format::RulesError>(())
/// ```
#[derive(Clone, Debug)]
pub struct Limits {
    bounds: Bounds,
    sizes: Vec<OnPatterns<u64>>,
    levels: Vec<OnPatterns<Strictness>>,
    histories: Vec<OnPatterns<HistoryLimit>>,
    size_trie: Trie<Best<u64>>,
    level_trie: Trie<Best<Strictness>>,
    history_trie: Trie<Best<HistoryLimit>>,
}

impl PartialEq for Limits {
    fn eq(&self, other: &Self) -> bool {
        (self.bounds, &self.sizes, &self.levels, &self.histories)
            == (other.bounds, &other.sizes, &other.levels, &other.histories)
    }
}

impl Eq for Limits {}

impl Default for Limits {
    fn default() -> Self {
        Self::compile(Bounds::default(), Vec::new(), Vec::new(), Vec::new())
    }
}

/// The fields that are not by pattern.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Bounds {
    binary_size: u64,
    metadata_size: u64,
    tags: u64,
    tag_length: u64,
    batch_bytes: u64,
    batch_count: u64,
    /// Of all payloads together; nothing, if it is not limited.
    total_size: Option<u64>,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            binary_size: 1 << 30,
            metadata_size: 1 << 20,
            tags: 64,
            tag_length: 128,
            batch_bytes: 64 << 20,
            batch_count: 100_000,
            total_size: None,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct OnPatterns<V> {
    on: Vec<Pattern>,
    value: V,
}

/// The best entry that ends at one place of the trie.
type Best<V> = Option<Ranked<V>>;

/// An entry with its rank: of two that match one key, the one with the higher rank decides.
#[derive(Clone, Debug)]
struct Ranked<V> {
    rank: usize,
    value: V,
    number: usize,
    pattern: Pattern,
}

/// `prefer` orders values; of equally specific patterns the greater value decides.
fn rank<V: Copy>(entries: &[OnPatterns<V>], prefer: impl Fn(V, V) -> std::cmp::Ordering) -> Trie<Best<V>> {
    let mut all: Vec<(&Pattern, V, usize)> = Vec::new();
    for (at, entry) in entries.iter().enumerate() {
        all.extend(entry.on.iter().map(|pattern| (pattern, entry.value, at + 1)));
    }
    // Stable, and the earlier of two equal entries is to be named: so in reverse.
    all.reverse();
    all.sort_by(|a, b| a.0.cmp_specificity(b.0).then_with(|| prefer(a.1, b.1)));
    let mut trie: Trie<Best<V>> = Trie::default();
    for (rank, (pattern, value, number)) in all.into_iter().enumerate() {
        if let Some(end) = trie.end_mut(pattern) {
            *end = Some(Ranked { rank, value, number, pattern: pattern.clone() });
        }
    }
    trie
}

fn best<'t, V>(trie: &'t Trie<Best<V>>, key: &[u8]) -> Option<&'t Ranked<V>> {
    let mut found: Option<&Ranked<V>> = None;
    trie.visit(key, |end| {
        if let Some(entry) = end
            && found.is_none_or(|known| entry.rank > known.rank)
        {
            found = Some(entry);
        }
    });
    found
}

impl Limits {
    pub(crate) const FIELDS: [&'static str; 10] = [
        "max_binary_size",
        "max_metadata_size",
        "max_tags",
        "max_tag_length",
        "max_batch_bytes",
        "max_batch_count",
        "max_total_size",
        "limit",
        "strictness",
        "history",
    ];

    /// Parses a limits document.
    ///
    /// # Errors
    /// [`RulesError`] with line and field; unknown fields are refused.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.only(
            &Self::FIELDS,
            "max_binary_size, max_metadata_size, max_tags, max_tag_length, max_batch_bytes, max_batch_count, max_total_size, [[limit]], [[strictness]], [[history]]; rules are a document of their own",
        )?;
        Self::from_table(&root)
    }

    pub(crate) fn from_table(root: &Table<'_>) -> Result<Self, RulesError> {
        let mut bounds = Bounds::default();
        let size = |name, bound: &mut u64| -> Result<(), RulesError> {
            if let Some(item) = root.get(name) {
                *bound = parse_size(&item)?;
            }
            Ok(())
        };
        size("max_binary_size", &mut bounds.binary_size)?;
        size("max_metadata_size", &mut bounds.metadata_size)?;
        size("max_tag_length", &mut bounds.tag_length)?;
        size("max_batch_bytes", &mut bounds.batch_bytes)?;
        bounds.total_size = root.get("max_total_size").map(|item| parse_size(&item)).transpose()?;
        if let Some(item) = root.get("max_tags") {
            bounds.tags = item.unsigned("an integer from 0")?;
        }
        if let Some(item) = root.get("max_batch_count") {
            bounds.batch_count = item.unsigned("an integer from 1")?;
        }
        for (name, bound) in
            [("max_batch_count", bounds.batch_count), ("max_batch_bytes", bounds.batch_bytes)]
        {
            // With neither could anything be written, not even other limits.
            if let (0, Some(item)) = (bound, root.get(name)) {
                return Err(item.refuse_value("more than 0", "0"));
            }
        }
        let mut sizes = Vec::new();
        for table in root.tables("limit", MAX_LIMITS)? {
            table.only(&["on", "max_binary_size"], "on, max_binary_size")?;
            let value = parse_size(&table.required("max_binary_size", EXPECTED_SIZE)?)?;
            sizes.push(OnPatterns { on: table.patterns("on")?, value });
        }
        let mut levels = Vec::new();
        for table in root.tables("strictness", MAX_LIMITS)? {
            table.only(&["on", "level"], "on, level")?;
            let item = table.required("level", "\"off\", \"warn\" or \"strict\"")?;
            let name = item.text()?;
            let value = name
                .parse::<Strictness>()
                .ok()
                .ok_or_else(|| item.refuse_value("\"off\", \"warn\" or \"strict\"", name))?;
            levels.push(OnPatterns { on: table.patterns("on")?, value });
        }
        let mut histories = Vec::new();
        for table in root.tables("history", MAX_LIMITS)? {
            table.only(&["on", "generations", "max_age"], "on, generations, max_age")?;
            let generations =
                table.get("generations").map(|item| item.unsigned("an integer from 0")).transpose()?;
            let age_max = table.get("max_age").map(|item| parse_age(&item)).transpose()?;
            if generations.is_none() {
                table.required("max_age", "generations, max_age, or both")?;
            }
            histories
                .push(OnPatterns { on: table.patterns("on")?, value: HistoryLimit { generations, age_max } });
        }
        Ok(Self::compile(bounds, sizes, levels, histories))
    }

    fn compile(
        bounds: Bounds,
        sizes: Vec<OnPatterns<u64>>,
        levels: Vec<OnPatterns<Strictness>>,
        histories: Vec<OnPatterns<HistoryLimit>>,
    ) -> Self {
        let size_trie = rank(&sizes, |a, b| b.cmp(&a));
        let level_trie = rank(&levels, |a, b| a.cmp(&b));
        let history_trie = rank(&histories, |a, b| a.cmp(&b));
        Self { bounds, sizes, levels, histories, size_trie, level_trie, history_trie }
    }

    /// Returns these limits with another one for a pattern, in place of the one that it has.
    #[must_use]
    pub fn with_max_binary_size(&self, on: Pattern, bytes: u64) -> Self {
        let mut sizes = self.sizes.clone();
        sizes.iter_mut().for_each(|entry| entry.on.retain(|pattern| *pattern != on));
        sizes.retain(|entry| !entry.on.is_empty());
        sizes.push(OnPatterns { on: vec![on], value: bytes });
        Self::compile(self.bounds, sizes, self.levels.clone(), self.histories.clone())
    }

    /// How much of the history of what is under this encoded key is kept; nothing, if none is.
    pub fn history(&self, key: &[u8]) -> Option<HistoryLimit> {
        if self.histories.is_empty() {
            return None;
        }
        best(&self.history_trie, key).map(|entry| entry.value)
    }

    /// The most bytes that a new payload under this encoded key may have, and what says so. Allocates nothing.
    pub fn max_binary_size(&self, key: &[u8]) -> Limit<'_> {
        match best(&self.size_trie, key) {
            Some(entry) => {
                let by = LimitedBy::Limit { number: entry.number, pattern: &entry.pattern };
                Limit { bytes: entry.value, by }
            }
            None => Limit { bytes: self.bounds.binary_size, by: LimitedBy::Default },
        }
    }

    /// How strictly the format of what is under this encoded key is held to the registry; [`Strictness::Warn`] where the
    /// document does not say.
    pub fn strictness(&self, key: &[u8]) -> Strictness {
        best(&self.level_trie, key).map_or(Strictness::default(), |entry| entry.value)
    }

    /// The most bytes that a payload may have where no `[[limit]]` matches; 1 GiB.
    pub fn default_binary_size(&self) -> u64 {
        self.bounds.binary_size
    }

    /// The most bytes that a record's metadata may have; 1 MiB.
    pub fn max_metadata_size(&self) -> u64 {
        self.bounds.metadata_size
    }

    /// The most tags that a record may have; 64.
    pub fn max_tags(&self) -> u64 {
        self.bounds.tags
    }

    /// The most bytes that a tag may have; 128.
    pub fn max_tag_length(&self) -> u64 {
        self.bounds.tag_length
    }

    /// The most bytes that a transaction may write; 64 MiB.
    pub fn max_batch_bytes(&self) -> u64 {
        self.bounds.batch_bytes
    }

    /// The most operations that a transaction may have; 100 000.
    pub fn max_batch_count(&self) -> u64 {
        self.bounds.batch_count
    }

    /// The most bytes that all payloads together may have; nothing, if that is not limited.
    pub fn max_total_size(&self) -> Option<u64> {
        self.bounds.total_size
    }

    /// How many `[[limit]]` tables there are.
    pub fn limit_count(&self) -> usize {
        self.sizes.len()
    }

    /// Writes the document; every field is there, also where it is the default, so that a later version with other
    /// defaults reads the same limits.
    pub fn to_toml(&self) -> String {
        let mut out = String::new();
        let bounds = &self.bounds;
        let mut size = |name: &str, bytes: u64| {
            let _ = writeln!(out, "{name} = {}", quoted(&ByteSize(bytes).to_exact()));
        };
        size("max_binary_size", bounds.binary_size);
        size("max_metadata_size", bounds.metadata_size);
        size("max_tag_length", bounds.tag_length);
        size("max_batch_bytes", bounds.batch_bytes);
        if let Some(bytes) = bounds.total_size {
            size("max_total_size", bytes);
        }
        let _ = writeln!(out, "max_tags = {}\nmax_batch_count = {}", bounds.tags, bounds.batch_count);
        for entry in &self.sizes {
            out.push_str("\n[[limit]]\n");
            write_list(&mut out, "on", entry.on.iter().map(|pattern| quoted(pattern.as_str())));
            let _ = writeln!(out, "max_binary_size = {}", quoted(&ByteSize(entry.value).to_exact()));
        }
        for entry in &self.levels {
            out.push_str("\n[[strictness]]\n");
            write_list(&mut out, "on", entry.on.iter().map(|pattern| quoted(pattern.as_str())));
            let _ = writeln!(out, "level = \"{}\"", entry.value);
        }
        for entry in &self.histories {
            out.push_str("\n[[history]]\n");
            write_list(&mut out, "on", entry.on.iter().map(|pattern| quoted(pattern.as_str())));
            if let Some(generations) = entry.value.generations {
                let _ = writeln!(out, "generations = {generations}");
            }
            if let Some(age) = entry.value.age_max {
                let _ = writeln!(out, "max_age = {}", quoted(&format!("{} s", age / 1_000_000)));
            }
        }
        out
    }
}

pub(crate) fn parse_size(item: &Item<'_>) -> Result<u64, RulesError> {
    if item.is_integer() {
        return item.unsigned(EXPECTED_SIZE);
    }
    let text = item.text().map_err(|error| match error.kind {
        RulesErrorKind::WrongType { got, .. } => {
            item.refuse(RulesErrorKind::WrongType { expected: EXPECTED_SIZE, got })
        }
        _ => error,
    })?;
    ByteSize::parse(text).map(|size| size.0).ok_or_else(|| item.refuse_value(EXPECTED_SIZE, text))
}
