//! Rows straight from the pages of a file that redb does not open any more.
//!
//! A leaf of redb 4.4 is a page that begins with a byte of 1, a byte of padding and the number of its pairs (u16); then come
//! the ends of the keys, unless these have a fixed length, and of the values (u32 each), counted from the beginning of the
//! page; then the keys; then the values. Pages begin at multiples of 4 096 bytes. Old pages stay in a file until they are
//! written over, so a row may be found several times, as it was at different times. What is a row is not guessed: its checksum
//! has to be that of its table and key.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::Path;

use larder_format::unseal;

use super::place::{self, io_error};
use super::tables::Table;
use crate::error::Result;

const PAGE: usize = 4_096;
const LEAF: u8 = 1;
/// The most that a leaf has, in bytes: the largest row, and what is around it.
const LEAF_LENGTH_MAX: usize = 72 << 20;
/// The most pairs that a page can have.
const PAIRS_MAX: usize = 4_096;
const CHUNK_KEY_LENGTH: usize = 16;

/// Hands every row that is found in any page to `each`: its table, its key, its value with the checksum. Says how many
/// leaves there were.
pub(crate) fn scan_pages(
    path: &Path,
    mut each: impl FnMut(Table, &[u8], &[u8]) -> Result<()>,
) -> Result<u64> {
    let reading = |error| io_error("reading the file", error);
    let path = place::resolve(path)?;
    let mut file =
        File::open(&path).map_err(|error| place::opening_error(&path, place::Access::Read, error))?;
    let (mut leaves, mut at) = (0, 0u64);
    let mut page = vec![0; PAGE];
    loop {
        file.seek(SeekFrom::Start(at)).map_err(reading)?;
        let read = read_up_to(&mut file, &mut page).map_err(reading)?;
        if read == 0 {
            return Ok(leaves);
        }
        let mut found = false;
        for key_length in [None, Some(CHUNK_KEY_LENGTH)] {
            let Some(length) = leaf_length(page.get(..read).unwrap_or_default(), key_length) else {
                continue;
            };
            let mut leaf = vec![0; length];
            let first = leaf.len().min(read);
            let (here, beyond) = leaf.split_at_mut(first);
            here.copy_from_slice(page.get(..first).unwrap_or_default());
            if read_up_to(&mut file, beyond).map_err(reading)? < beyond.len() {
                file.seek(SeekFrom::Start(at + read as u64)).map_err(reading)?;
                continue;
            }
            file.seek(SeekFrom::Start(at + read as u64)).map_err(reading)?;
            for (key, value) in pairs(&leaf, key_length) {
                if let Some((table, key)) = table_of(key, value, key_length.is_some()) {
                    found = true;
                    each(table, key, value)?;
                }
            }
        }
        leaves += u64::from(found);
        at += PAGE as u64;
    }
}

fn read_up_to(file: &mut File, out: &mut [u8]) -> std::io::Result<usize> {
    let mut done = 0;
    while let Some(rest) = out.get_mut(done..).filter(|rest| !rest.is_empty()) {
        match file.read(rest)? {
            0 => break,
            read => done += read,
        }
    }
    Ok(done)
}

fn number_at(page: &[u8], at: usize) -> Option<usize> {
    let bytes = page.get(at..)?.first_chunk::<4>()?;
    usize::try_from(u32::from_le_bytes(*bytes)).ok()
}

/// The number of pairs, if a page can be a leaf.
fn pair_count(page: &[u8]) -> Option<usize> {
    let ([LEAF, _, c0, c1], _) = page.split_first_chunk::<4>()? else { return None };
    let count = usize::from(u16::from_le_bytes([*c0, *c1]));
    (1..=PAIRS_MAX).contains(&count).then_some(count)
}

/// Where the last value of a leaf ends.
fn leaf_length(page: &[u8], key_length: Option<usize>) -> Option<usize> {
    let count = pair_count(page)?;
    let ends = if key_length.is_some() { count } else { 2 * count };
    let length = number_at(page, 4 + 4 * (ends - 1))?;
    (4 + 4 * ends..=LEAF_LENGTH_MAX).contains(&length).then_some(length)
}

/// The keys and values of a leaf, as far as they can be.
fn pairs(leaf: &[u8], key_length: Option<usize>) -> Vec<(&[u8], &[u8])> {
    let Some(count) = pair_count(leaf) else { return Vec::new() };
    let (value_ends, keys_at) = match key_length {
        Some(_) => (4, 4 + 4 * count),
        None => (4 + 4 * count, 4 + 8 * count),
    };
    let key_end = |number: usize| match key_length {
        Some(length) => Some(keys_at + length * (number + 1)),
        None => number_at(leaf, 4 + 4 * number),
    };
    let mut pairs = Vec::with_capacity(count);
    let Some(mut value_at) = key_end(count - 1) else { return pairs };
    let mut key_at = keys_at;
    for number in 0..count {
        let (Some(key_to), Some(value_to)) = (key_end(number), number_at(leaf, value_ends + 4 * number))
        else {
            break;
        };
        if let (Some(key), Some(value)) = (leaf.get(key_at..key_to), leaf.get(value_at..value_to)) {
            pairs.push((key, value));
        }
        (key_at, value_at) = (key_to, value_to);
    }
    pairs
}

/// The table whose checksum a value carries, and the key of the row in it.
fn table_of<'k>(key: &'k [u8], value: &[u8], is_chunk: bool) -> Option<(Table, &'k [u8])> {
    Table::ALL.into_iter().filter(|table| (*table == Table::Chunks) == is_chunk).find_map(|table| {
        let key = match table.tree().1 {
            Some(front) => key.strip_prefix(&[front])?,
            None => key,
        };
        unseal(table.number(), key, value).ok().map(|_| (table, key))
    })
}
