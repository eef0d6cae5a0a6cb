//! What a computation was made of: named parts, in one canonical form.

use std::fmt::Write as _;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use larder::format::Labelled;
use larder::{Key, Micros, Part, Tuple};

use super::RememberError;

/// The named parts that a value is computed from. The order in which they are given does not matter; their types do:
/// `1`, `"1"` and `1.0` are three different parts.
#[derive(Debug, Clone, Default)]
#[must_use]
pub struct Parts {
    pairs: Vec<(String, Part)>,
}

impl Parts {
    /// Begins without a part.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a part.
    pub fn with(mut self, name: impl Into<String>, value: impl Into<Part>) -> Self {
        self.pairs.push((name.into(), value.into()));
        self
    }

    /// Takes parts from a list of pairs, each of a name and a value.
    ///
    /// # Errors
    /// [`Parts`](RememberError::Parts) if it is anything else: what has no name is refused.
    pub fn from_part(part: Part) -> Result<Self, RememberError> {
        let labelled = Labelled::from_part(part).map_err(RememberError::parts)?;
        Ok(Self { pairs: labelled.iter().map(|(name, part)| (name.into_owned(), part)).collect() })
    }

    pub(super) fn labelled(&self) -> Result<Labelled, RememberError> {
        Labelled::new(self.pairs.clone()).map_err(RememberError::parts)
    }
}

/// Which number stands for the parts. 128 bits of a digest, unless a cache is told otherwise.
pub type FingerprintFn = fn(&[u8]) -> u128;

pub(super) fn blake3_fingerprint(parts: &[u8]) -> u128 {
    blake3::hash(parts).as_bytes().first_chunk().map_or(0, |bytes| u128::from_be_bytes(*bytes))
}

/// Uses that were taken to be written: of which value, how many, and when the last one was.
pub(super) type Taken = Vec<(Bytes, (i64, Micros))>;

/// Uses of a value that were counted and not written yet: how many, and when the last one was.
#[derive(Debug, Default)]
pub(super) struct Uses {
    pub(super) count: AtomicI64,
    pub(super) last: AtomicI64,
}

impl Uses {
    pub(super) fn add(&self, now: Micros) {
        self.count.fetch_add(1, Ordering::Relaxed);
        self.last.fetch_max(now, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> (i64, Micros) {
        (self.count.load(Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }

    /// Counts again what was taken, and not written.
    pub(super) fn give_back(&self, hits: i64, last: Micros) {
        self.count.fetch_add(hits, Ordering::Relaxed);
        self.last.fetch_max(last, Ordering::Relaxed);
    }

    /// Takes what was counted; what is counted meanwhile stays for the next time.
    pub(super) fn take(&self) -> (i64, Micros) {
        (self.count.swap(0, Ordering::Relaxed), self.last.load(Ordering::Relaxed))
    }
}

/// Where the value of some parts lies. To be kept by those who ask for the same value often.
#[derive(Debug, Clone)]
pub struct Fingerprint {
    pub(super) key: Key,
    pub(super) parts: Bytes,
    /// How many others have the same number.
    pub(super) attempt: u32,
    /// Where its uses are counted, once there was one.
    pub(super) uses: OnceLock<Arc<Uses>>,
}

impl PartialEq for Fingerprint {
    fn eq(&self, other: &Self) -> bool {
        self.key == other.key && self.parts == other.parts
    }
}

impl Eq for Fingerprint {}

impl Fingerprint {
    /// Gives the key of the asset that has the value.
    #[must_use]
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// Gives the parts, in their canonical form.
    #[must_use]
    pub fn parts(&self) -> &[u8] {
        &self.parts
    }

    pub(super) fn row(&self) -> Result<Tuple, RememberError> {
        Tuple::decode(&self.parts).map_err(RememberError::parts)
    }

    pub(super) fn of(values: &Key, parts: Bytes, number: u128, attempt: u32) -> Result<Self, RememberError> {
        let mut text = String::with_capacity(values.as_str().len() + 36);
        text.push_str(values.as_str());
        let _ = write!(text, "/{number:032x}");
        if attempt > 0 {
            let _ = write!(text, "-{attempt}");
        }
        Ok(Self {
            key: Key::parse(&text).map_err(larder::Error::from)?,
            parts,
            attempt,
            uses: OnceLock::new(),
        })
    }
}
