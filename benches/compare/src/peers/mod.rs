//! What larder is compared with, each configured as its own documentation recommends.

mod cacache;
mod files;
mod fjall;
mod larder;
mod lmdb;
mod redb;
mod sqlite;

use std::error::Error;
use std::path::Path;

/// An answer, or nothing where a peer does not offer what was asked for.
pub type Offered<T> = Result<Option<T>, Box<dyn Error + Send + Sync>>;

/// How safe a put is when it returns, and what a peer is opened for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// On disk.
    Durable,
    /// Handed to the peer; on disk sometime.
    Unsynced,
    /// The same, of a store that is loaded at once and then read.
    ToRead,
}

/// A row: a key, 256 bytes of metadata with the number `n` in it, and a payload.
pub struct Row {
    /// `directory/name`.
    pub key: String,
    /// The field that is filtered by.
    pub n: u64,
    /// The payload.
    pub payload: Vec<u8>,
}

impl Row {
    /// Gives the directory.
    pub fn directory(&self) -> &str {
        self.key.rsplit_once('/').map_or("", |(directory, _)| directory)
    }

    /// Gives the metadata as JSON of 256 bytes.
    pub fn json(&self) -> Vec<u8> {
        let (n, length) = (self.n, self.payload.len());
        let mut json = format!("{{\"n\":{n},\"length\":{length},\"format\":\"bin\",\"note\":\"");
        json.extend(std::iter::repeat_n('x', 254_usize.saturating_sub(json.len())));
        json.push_str("\"}");
        json.into_bytes()
    }
}

/// The number `n` of metadata in JSON.
fn n_of(json: &[u8]) -> Result<u64, Box<dyn Error + Send + Sync>> {
    number_in(json, "n")
}

fn number_in(json: &[u8], field: &str) -> Result<u64, Box<dyn Error + Send + Sync>> {
    let value: serde_json::Value = serde_json::from_slice(json)?;
    value[field].as_u64().ok_or_else(|| format!("metadata without a number {field}").into())
}

/// What rows are filtered by.
#[derive(Debug, Clone, Copy)]
pub enum Filter {
    /// A field that the application added: its number is a multiple of 100.
    Number,
    /// A field that every row has: the length of its payload is this one.
    Length(usize),
}

impl Filter {
    /// Tells whether a row is wanted, by its metadata in JSON.
    fn wants(self, json: &[u8]) -> Result<bool, Box<dyn Error + Send + Sync>> {
        match self {
            Self::Number => Ok(n_of(json)?.is_multiple_of(100)),
            Self::Length(length) => Ok(number_in(json, "length")? == length as u64),
        }
    }
}

/// A store under comparison. Dropping it closes it.
pub trait Peer: Send + Sync {
    /// Stores a row in a transaction of its own.
    fn put(&self, row: &Row) -> Offered<()>;
    /// Stores rows in transactions of 10 000, and has them on disk on return.
    fn bulk(&self, rows: &[Row]) -> Offered<()>;
    /// Fetches the metadata of a key, as they are stored, and gives their length.
    fn meta(&self, key: &str) -> Offered<usize>;
    /// Reads the metadata of a key and gives their number.
    fn number(&self, key: &str) -> Offered<u64>;
    /// Reads a payload whole.
    fn payload(&self, key: &str) -> Offered<Vec<u8>>;
    /// Counts the rows that are wanted.
    fn filter(&self, filter: Filter) -> Offered<usize>;
    /// Counts the entries of a directory, one level.
    fn list(&self, directory: &str) -> Offered<usize>;
}

/// A kind of peer.
pub struct Kind {
    /// Its name.
    pub name: &'static str,
    /// Its version.
    pub version: &'static str,
    /// How it is configured, for the report.
    pub configuration: &'static str,
    /// Opens it in a folder of its own.
    pub open: fn(&Path, Mode) -> Offered<Box<dyn Peer>>,
}

/// All of them, larder first.
pub fn all() -> Vec<Kind> {
    vec![larder::KIND, redb::KIND, sqlite::KIND, lmdb::KIND, fjall::KIND, cacache::KIND, files::KIND]
}
