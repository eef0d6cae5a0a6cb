//! Writing the pieces of a snapshot: rows are read here, frames are made by workers, and written here in their order.

use std::io::Write;

use larder_format::{PieceHeader, PieceKind, SnapshotHeader, SnapshotManifest};

use super::frame::Framer;
use super::in_order::in_order;
use super::plan::Operations;
use super::{Watch, watched};
use crate::error::{Error, ErrorKind, Result};

/// A piece is closed when its content has grown beyond this many bytes.
const CONTENT_LENGTH: usize = 1 << 20;

/// What was written.
#[derive(Debug, Default)]
pub(super) struct Written {
    pub(super) rows: u64,
    pub(super) bytes: u64,
    pub(super) content_bytes: u64,
}

/// Writes a snapshot.
pub(super) fn write(
    header: &SnapshotHeader,
    mut operations: Operations,
    out: &mut dyn Write,
    (threads, level): (usize, i32),
    watch: Option<&Watch>,
) -> Result<Written> {
    let mut pieces = Pieces { out, chain: blake3::Hasher::new(), next: 0, written: Written::default() };
    let mut manifest = SnapshotManifest::default();
    let mut kinds = [PieceKind::Header, PieceKind::Rows].into_iter();
    let mut kind = kinds.next();
    let produce = || {
        let Some(now) = kind else { return Ok(None) };
        let mut content = Vec::new();
        match now {
            PieceKind::Header => content = header.encode(),
            PieceKind::Rows => {
                content.reserve(CONTENT_LENGTH + CONTENT_LENGTH / 8);
                while content.len() < CONTENT_LENGTH && operations.append_next(&mut content, &mut manifest)? {
                }
                if content.is_empty() {
                    kind = None;
                    return Ok(Some((PieceKind::Manifest, manifest.encode())));
                }
                return Ok(Some((now, content)));
            }
            _ => {}
        }
        kind = kinds.next();
        Ok(Some((now, content)))
    };
    let worker = || {
        let mut framer = Framer::new(level)?;
        Ok(move |(kind, content): (PieceKind, Vec<u8>)| {
            let frame = framer.frame(&content)?;
            let digest = *blake3::hash(&frame).as_bytes();
            Ok((kind, content.len(), frame, digest))
        })
    };
    let length = |(_, content): &(PieceKind, Vec<u8>)| content.len() as u64;
    in_order(threads, produce, length, worker, |(kind, content_length, frame, digest)| {
        pieces.push(kind, content_length, &frame, digest)?;
        watched(watch, pieces.written.content_bytes)
    })?;
    pieces.end()?;
    let rows = manifest.tables.values().map(|(count, _)| count).sum();
    Ok(Written { rows, ..pieces.written })
}

struct Pieces<'o> {
    out: &'o mut dyn Write,
    chain: blake3::Hasher,
    next: u64,
    written: Written,
}

impl Pieces<'_> {
    fn push(&mut self, kind: PieceKind, content_length: usize, frame: &[u8], digest: [u8; 32]) -> Result<()> {
        let length = |length: usize| {
            u32::try_from(length)
                .map_err(|_| Error::from(ErrorKind::Corrupt { what: "a row is too large".to_owned() }))
        };
        let header = PieceHeader {
            kind,
            number: self.next,
            frame_length: length(frame.len())?,
            content_length: length(content_length)?,
            digest,
        };
        let header = header.encode();
        self.chain.update(&header);
        self.next += 1;
        self.written.bytes += (header.len() + frame.len()) as u64;
        self.written.content_bytes += content_length as u64;
        self.out.write_all(&header).and_then(|()| self.out.write_all(frame)).map_err(failed)
    }

    fn end(&mut self) -> Result<()> {
        let digest = *self.chain.finalize().as_bytes();
        self.push(PieceKind::End, 0, &[], digest)?;
        self.out.flush().map_err(failed)
    }
}

fn failed(error: std::io::Error) -> Error {
    crate::store::io_error("writing the snapshot", error)
}
