//! How large a cache may be, and what goes first.

use larder::{Annotation, AttributeValue, Record};

/// What goes first when a cache is full.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Eviction {
    /// What was used the longest time ago.
    #[default]
    LeastRecent,
    /// What was used least often; of these, what was used the longest time ago.
    LeastFrequent,
    /// What is made again at the least cost: the time that it took to compute, for each byte.
    LeastCost,
}

impl Eviction {
    const ALL: [(Self, &'static str); 3] =
        [(Self::LeastRecent, "recent"), (Self::LeastFrequent, "frequent"), (Self::LeastCost, "cost")];

    /// The index that has entries in the order in which they go.
    pub(super) fn index(self) -> &'static str {
        Self::ALL.iter().find(|(eviction, _)| *eviction == self).map_or("recent", |(_, name)| name)
    }
}

/// How large a namespace of a cache may be: nothing is stored that would make it larger. What is pinned stays also where limits that are
/// set later have no room for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CacheLimits {
    /// The most entries.
    pub entries_max: u64,
    /// The most bytes of all values.
    pub bytes_max: u64,
    /// What goes first.
    pub eviction: Eviction,
}

impl Default for CacheLimits {
    fn default() -> Self {
        Self { entries_max: u64::MAX, bytes_max: u64::MAX, eviction: Eviction::default() }
    }
}

impl CacheLimits {
    /// No limits.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the most entries.
    #[must_use]
    pub fn entries_max(mut self, entries: u64) -> Self {
        self.entries_max = entries;
        self
    }

    /// Sets the most bytes of all values.
    #[must_use]
    pub fn bytes_max(mut self, bytes: u64) -> Self {
        self.bytes_max = bytes;
        self
    }

    /// Says what goes first.
    #[must_use]
    pub fn eviction(mut self, eviction: Eviction) -> Self {
        self.eviction = eviction;
        self
    }

    pub(super) fn annotation(&self) -> Annotation {
        let count = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
        Annotation::new()
            .attribute("cache.entries_max", count(self.entries_max))
            .attribute("cache.bytes_max", count(self.bytes_max))
            .attribute("cache.eviction", self.eviction.index())
    }

    pub(super) fn of(record: &Record) -> Self {
        let attributes = record.attributes();
        let number = |name: &str| match attributes.get(name) {
            Some(AttributeValue::Integer(value)) if *value < i64::MAX => {
                u64::try_from(*value).unwrap_or(u64::MAX)
            }
            _ => u64::MAX,
        };
        let eviction = match attributes.get("cache.eviction") {
            Some(AttributeValue::Text(name)) => Eviction::ALL.iter().find(|(_, other)| other == name),
            _ => None,
        };
        Self {
            entries_max: number("cache.entries_max"),
            bytes_max: number("cache.bytes_max"),
            eviction: eviction.map_or(Eviction::default(), |(eviction, _)| *eviction),
        }
    }
}

/// How much there is above the limits.
#[derive(Debug, Clone, Copy)]
pub(super) struct Excess {
    limits: CacheLimits,
    entries: u64,
    bytes: u64,
}

impl Excess {
    pub(super) fn of(limits: &CacheLimits, entries: u64, bytes: u64) -> Self {
        Self { limits: *limits, entries, bytes }
    }

    /// Says what there is too much of, and how much there may be.
    pub(super) fn unit(&self) -> Option<(&'static str, u64)> {
        match self.limits {
            CacheLimits { entries_max, .. } if self.entries > entries_max => Some(("entries", entries_max)),
            CacheLimits { bytes_max, .. } if self.bytes > bytes_max => Some(("bytes", bytes_max)),
            _ => None,
        }
    }

    pub(super) fn is_any(&self) -> bool {
        self.unit().is_some()
    }

    /// Takes an entry away.
    pub(super) fn take(&mut self, bytes: u64) {
        self.entries = self.entries.saturating_sub(1);
        self.bytes = self.bytes.saturating_sub(bytes);
    }
}
