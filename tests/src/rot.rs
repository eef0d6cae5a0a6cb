//! Files that rotted, and what is read from one.

use std::collections::BTreeMap;
use std::path::Path;

use bytes::Bytes;
use larder::format::Operation;
use larder::{ErrorKind, Larder, Options, ReadTxn, Result, SnapshotOptions};

/// Where the rows begin in the content of a snapshot.
const SNAPSHOT_HEADER: usize = 144;

/// All that a store says.
#[derive(Debug)]
pub struct Said {
    /// Nothing where an asset has none, as a collection.
    payloads: BTreeMap<String, Option<Bytes>>,
    /// Nothing if they are not compared.
    rows: Option<Rows>,
}

/// Rows, by table and key.
type Rows = BTreeMap<(u8, Bytes), Bytes>;

/// What became of reading a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rot {
    /// It says what it said before.
    Unchanged,
    /// Something could not be read, and who asked was told.
    Refused,
    /// Something is missing, or is there that was not, and nobody was told: only comparing all of it can tell.
    Missing,
    /// Other bytes were read than were written.
    Wrong,
}

impl Said {
    /// Reads the assets that there are in a file; and the rows of all tables too, if that is asked for, which takes longer.
    ///
    /// # Errors
    /// As for whoever reads it.
    pub fn of(path: &Path, with_rows: bool) -> Result<Self> {
        let larder = open(path)?;
        let snapshot = larder.root()?.snapshot()?;
        let mut payloads = BTreeMap::new();
        for item in snapshot.walk("")? {
            let (key, _) = item?;
            payloads.insert(key.to_string(), payload(&snapshot, key.as_str())?);
        }
        let rows = if with_rows { Some(rows_of(&larder)?) } else { None };
        Ok(Self { payloads, rows })
    }

    /// Tells how many assets and rows are compared.
    pub fn count(&self) -> usize {
        self.payloads.len() + self.rows.as_ref().map_or(0, BTreeMap::len)
    }

    /// Reads everything again, from a file that may have rotted: asset by asset, by walking, and row by row.
    pub fn again(&self, path: &Path) -> Rot {
        let Ok(larder) = open(path) else { return Rot::Refused };
        let Ok(snapshot) = larder.root().and_then(|session| session.snapshot()) else { return Rot::Refused };
        let looks = [self.by_key(&snapshot), self.by_walking(&snapshot), self.by_row(&larder)];
        let worst = |is: Rot| looks.contains(&is).then_some(is);
        worst(Rot::Wrong).or(worst(Rot::Missing)).or(worst(Rot::Refused)).unwrap_or(Rot::Unchanged)
    }

    fn by_key(&self, snapshot: &ReadTxn) -> Rot {
        let mut found = Rot::Unchanged;
        for (key, payload) in &self.payloads {
            found = match self::payload(snapshot, key) {
                Ok(again) if again == *payload => continue,
                Ok(_) => return Rot::Wrong,
                Err(error) if error.kind().name() == "NotFound" => Rot::Missing,
                Err(_) if found == Rot::Missing => found,
                Err(_) => Rot::Refused,
            };
        }
        found
    }

    fn by_walking(&self, snapshot: &ReadTxn) -> Rot {
        let Ok(walk) = snapshot.walk("") else { return Rot::Refused };
        let mut count = 0;
        for item in walk {
            let Ok((key, _)) = item else { return Rot::Refused };
            if !self.payloads.contains_key(key.as_str()) {
                return Rot::Missing;
            }
            count += 1;
        }
        if count == self.payloads.len() { Rot::Unchanged } else { Rot::Missing }
    }

    fn by_row(&self, larder: &Larder) -> Rot {
        let Some(before) = &self.rows else { return Rot::Unchanged };
        let Ok(rows) = rows_of(larder) else { return Rot::Refused };
        let is_wrong = |(key, row): (&(u8, Bytes), &Bytes)| before.get(key).is_some_and(|good| good != row);
        if rows.iter().any(is_wrong) {
            Rot::Wrong
        } else if rows.keys().eq(before.keys()) {
            Rot::Unchanged
        } else {
            Rot::Missing
        }
    }
}

fn payload(snapshot: &ReadTxn, key: &str) -> Result<Option<Bytes>> {
    match snapshot.get(key)?.bytes() {
        Err(error) if matches!(error.kind(), ErrorKind::PayloadUnavailable { .. }) => Ok(None),
        read => read.map(|bytes| Some(Bytes::copy_from_slice(&bytes))),
    }
}

fn open(path: &Path) -> Result<Larder> {
    Options::new().cache_bytes(1 << 20).open_read_only(path)
}

/// Gives all rows of all tables, as a snapshot has them.
fn rows_of(larder: &Larder) -> Result<Rows> {
    let mut snapshot = Vec::new();
    larder.snapshot_into(&mut snapshot, &SnapshotOptions::new())?;
    let content = Bytes::from(zstd::decode_all(snapshot.as_slice()).expect("what was just made"));
    let (mut rows, mut at) = (BTreeMap::new(), SNAPSHOT_HEADER);
    while let Ok(operation) = Operation::decode(&content, &mut at) {
        if let Operation::Put { table, key, value } = operation {
            rows.insert((table, key), value);
        }
    }
    Ok(rows)
}
