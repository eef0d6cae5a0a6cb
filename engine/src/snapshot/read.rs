//! Reading a snapshot, piece by piece: nothing is given on that was not compared with its digest.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use bytes::Bytes;
use larder_format::{
    Operation, PIECE_HEADER_LENGTH, PieceHeader, PieceKind, SnapshotError, SnapshotHeader, SnapshotManifest,
};

use super::frame;
use super::in_order::in_order;
use super::{Watch, watched};
use crate::error::{Error, ErrorKind, Result};
use crate::store::{FORMAT_VERSION, Table};

/// How many operations are handed on together.
const OPERATIONS_AT_ONCE: usize = 1_024;

pub(super) fn damaged(what: impl Into<String>) -> Error {
    ErrorKind::SnapshotDamaged { what: what.into() }.into()
}

fn wrong(error: SnapshotError) -> Error {
    match error {
        SnapshotError::Version { found } => {
            let max = u32::from(larder_format::SNAPSHOT_VERSION);
            ErrorKind::UnsupportedVersion { found: u32::from(found), max }.into()
        }
        other => damaged(other.to_string()),
    }
}

/// The pieces of a snapshot, in order, each with its frame as it lies there.
struct Pieces<R> {
    input: R,
    chain: blake3::Hasher,
    next: u64,
    is_over: bool,
}

impl<R: Read> Pieces<R> {
    fn new(input: R) -> Self {
        Self { input, chain: blake3::Hasher::new(), next: 0, is_over: false }
    }

    fn next(&mut self) -> Result<Option<(PieceHeader, Vec<u8>)>> {
        if self.is_over {
            return Ok(None);
        }
        let mut bytes = [0; PIECE_HEADER_LENGTH];
        self.fill(&mut bytes)?;
        let header = PieceHeader::decode(&bytes).map_err(wrong)?;
        if header.number != self.next {
            return Err(damaged(format!("piece {} is where piece {} should be", header.number, self.next)));
        }
        if (header.kind == PieceKind::Header) != (header.number == 0) {
            return Err(damaged("it does not begin with what it is, or says it twice"));
        }
        if header.kind == PieceKind::End {
            if header.digest != *self.chain.finalize().as_bytes() {
                return Err(damaged("its pieces are not those that it ends with"));
            }
            if self.input.read(&mut [0]).map_err(failed)? > 0 {
                return Err(damaged("bytes follow its end"));
            }
            self.is_over = true;
            return Ok(None);
        }
        self.chain.update(&bytes);
        self.next += 1;
        let mut frame = Vec::new();
        // Not all at once: the length is what the file says.
        let length = u64::from(header.frame_length);
        let read = (&mut self.input).take(length).read_to_end(&mut frame).map_err(failed)?;
        if read as u64 != length {
            return Err(damaged("it was cut off"));
        }
        Ok(Some((header, frame)))
    }

    fn fill(&mut self, out: &mut [u8]) -> Result<()> {
        self.input.read_exact(out).map_err(|error| match error.kind() {
            std::io::ErrorKind::UnexpectedEof => damaged("it was cut off"),
            _ => failed(error),
        })
    }
}

fn failed(error: std::io::Error) -> Error {
    crate::store::io_error("reading the snapshot", error)
}

/// The content of a piece, compared with its digest.
fn open_piece(header: &PieceHeader, bytes: &[u8]) -> Result<Vec<u8>> {
    if *blake3::hash(bytes).as_bytes() != header.digest {
        return Err(damaged(format!("piece {} is not the one that was written", header.number)));
    }
    frame::content(bytes, header.content_length)
}

fn open_file(path: &Path) -> Result<BufReader<File>> {
    let file = File::open(path).map_err(|error| match error.kind() {
        std::io::ErrorKind::NotFound => Error::from(ErrorKind::NoSuchFile).caused_by(error),
        _ => failed(error),
    })?;
    Ok(BufReader::with_capacity(256 << 10, file))
}

/// Reads what a snapshot is of, and nothing else.
pub(super) fn header_of(path: &Path) -> Result<SnapshotHeader> {
    let Some((header, frame)) = Pieces::new(open_file(path)?).next()? else {
        return Err(damaged("it has nothing but an end"));
    };
    decode_header(&open_piece(&header, &frame)?)
}

fn decode_header(content: &[u8]) -> Result<SnapshotHeader> {
    let header = SnapshotHeader::decode(content).map_err(wrong)?;
    if header.format > FORMAT_VERSION {
        return Err(ErrorKind::UnsupportedVersion { found: header.format, max: FORMAT_VERSION }.into());
    }
    Ok(header)
}

/// What was read of a piece.
enum Opened {
    Header(SnapshotHeader),
    /// Operations, checked; in memory a small one takes many times its bytes, so they are decoded when their turn comes.
    Rows(Bytes),
    Manifest(SnapshotManifest),
}

/// Reads a snapshot to its end, and hands its operations to `each`, in order; what `each` got counts only if this is
/// `Ok`. Says what the snapshot is of, and what it has.
pub(super) fn read(
    path: &Path,
    threads: usize,
    watch: Option<&Watch>,
    mut each: impl FnMut(&[Operation]) -> Result<()>,
) -> Result<(SnapshotHeader, SnapshotManifest)> {
    let mut pieces = Pieces::new(open_file(path)?);
    let (mut header, mut said, mut counted) = (None, None, SnapshotManifest::default());
    let mut order = Order::default();
    let mut bytes = 0;
    in_order(
        threads,
        || pieces.next(),
        |(header, _)| u64::from(header.content_length),
        || Ok(|(header, frame): (PieceHeader, Vec<u8>)| Ok((open(&header, &frame)?, header.content_length))),
        |(opened, length)| {
            bytes += u64::from(length);
            if said.is_some() {
                return Err(damaged("pieces follow its manifest"));
            }
            match opened {
                Opened::Header(found) => header = Some(found),
                Opened::Manifest(found) => said = Some(found),
                Opened::Rows(content) => {
                    let (mut at, mut some) = (0, Vec::new());
                    while at < content.len() {
                        let operation = decode(&content, &mut at)?;
                        order.follow(&operation)?;
                        counted.count(operation.place().0, length_of(&operation));
                        some.push(operation);
                        if some.len() == OPERATIONS_AT_ONCE {
                            each(&some)?;
                            some.clear();
                        }
                    }
                    each(&some)?;
                }
            }
            watched(watch, bytes)
        },
    )?;
    let (Some(header), Some(said)) = (header, said) else { return Err(damaged("it has no manifest")) };
    if said != counted {
        return Err(damaged("it has not as many rows as its manifest says"));
    }
    Ok((header, said))
}

fn open(header: &PieceHeader, frame: &[u8]) -> Result<Opened> {
    let content = open_piece(header, frame)?;
    match header.kind {
        PieceKind::Header => decode_header(&content).map(Opened::Header),
        PieceKind::Manifest => SnapshotManifest::decode(&content).map(Opened::Manifest).map_err(wrong),
        PieceKind::Rows => {
            let (content, mut at) = (Bytes::from(content), 0);
            while at < content.len() {
                check(&decode(&content, &mut at)?)?;
            }
            Ok(Opened::Rows(content))
        }
        _ => Err(damaged("a piece is of no known kind")),
    }
}

fn decode(content: &Bytes, at: &mut usize) -> Result<Operation> {
    Operation::decode(content, at).map_err(|error| damaged(error.to_string()))
}

/// Values are those of their keys, in tables that a snapshot may have.
fn check(operation: &Operation) -> Result<()> {
    let (number, key) = operation.place();
    match Table::from_number(number) {
        None | Some(Table::Meta | Table::Staging) => {
            return Err(damaged(format!("it has rows of table {number}")));
        }
        Some(Table::Chunks) if key.len() != 16 && !key.is_empty() => {
            return Err(damaged("the key of a chunk has not 16 bytes"));
        }
        Some(_) => {}
    }
    match operation {
        Operation::Put { table, key, value } => larder_format::unseal(*table, key, value)
            .map(drop)
            .map_err(|error| damaged(format!("table {table}, key {}: {error}", key.escape_ascii()))),
        _ => Ok(()),
    }
}

fn length_of(operation: &Operation) -> u64 {
    let (_, key) = operation.place();
    let value = match operation {
        Operation::Put { value, .. } => value.len(),
        Operation::Delete { .. } => 0,
        Operation::DeleteRange { end, .. } => 8 + end.as_ref().map_or(0, Bytes::len),
    };
    (8 + key.len() + value) as u64
}

/// Operations come in the order of table and key, no key twice; a range goes before what is put at its beginning.
#[derive(Default)]
struct Order {
    last: Option<(u8, Bytes)>,
    was_range: bool,
}

impl Order {
    fn follow(&mut self, operation: &Operation) -> Result<()> {
        let (table, key) = operation.place();
        let is_range = matches!(operation, Operation::DeleteRange { .. });
        let is_behind = match &self.last {
            None => true,
            Some((last_table, last)) => {
                let same = (*last_table, last) == (table, key);
                (*last_table, last) < (table, key) || (same && self.was_range && !is_range)
            }
        };
        if !is_behind {
            return Err(damaged(format!(
                "its rows are not in order at table {table}, key {}",
                key.escape_ascii()
            )));
        }
        (self.last, self.was_range) = (Some((table, key.clone())), is_range);
        Ok(())
    }
}
