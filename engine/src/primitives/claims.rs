//! Claims: who may write under a key until when; who was revoked and may still be at work; who is in a group.
//!
//! ```text
//! [1][encoded key]:            [fence u64][claimed i64][until i64][owner length u16][owner][group]
//! [2][fence u64 big-endian]:   [time i64][owner length u16][by length u16][owner][by][encoded key]
//! [3][group][0][encoded key]:  nothing
//! ```

use bytes::Bytes;
use larder_format::{Key, Micros};

use crate::error::{ErrorKind, Result};
use crate::store::corrupt;

/// The most bytes that the name of a group may have.
const GROUP_LENGTH_MAX: usize = 255;
/// How many fence numbers are reserved at a time.
pub(crate) const FENCES_AT_ONCE: u64 = 1 << 16;

/// A claim that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ClaimRow {
    pub(crate) fence: u64,
    pub(crate) claimed: Micros,
    pub(crate) until: Micros,
    pub(crate) owner: String,
    /// The group that it counts in; empty for none.
    pub(crate) group: String,
}

impl ClaimRow {
    pub(crate) fn key(key: &[u8]) -> Bytes {
        [&[1], key].concat().into()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(26 + self.owner.len() + self.group.len());
        row.extend_from_slice(&self.fence.to_le_bytes());
        row.extend_from_slice(&self.claimed.to_le_bytes());
        row.extend_from_slice(&self.until.to_le_bytes());
        row.extend_from_slice(&length_of(&self.owner));
        row.extend_from_slice(self.owner.as_bytes());
        row.extend_from_slice(self.group.as_bytes());
        row
    }

    pub(crate) fn decode(row: &[u8]) -> Result<Self> {
        let parts = || {
            let (fence, rest) = row.split_first_chunk::<8>()?;
            let (claimed, rest) = rest.split_first_chunk::<8>()?;
            let (until, rest) = rest.split_first_chunk::<8>()?;
            let (length, rest) = rest.split_first_chunk::<2>()?;
            let (owner, group) = rest.split_at_checked(usize::from(u16::from_le_bytes(*length)))?;
            Some(Self {
                fence: u64::from_le_bytes(*fence),
                claimed: i64::from_le_bytes(*claimed),
                until: i64::from_le_bytes(*until),
                owner: text(owner)?,
                group: text(group)?,
            })
        };
        parts().ok_or_else(|| corrupt("a row of the claims is malformed"))
    }
}

/// A claim that was revoked, and whose holder has not been heard of since.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Orphan {
    /// The key that it was about.
    pub key: Key,
    /// The number of the claim.
    pub fence: u64,
    /// Who held it.
    pub owner: String,
    /// Who revoked it: by writing, by cancelling, by claiming anew, or `upkeep`, because it was past its time.
    pub by: String,
    /// When.
    pub time: Micros,
}

impl Orphan {
    /// In front of all of them.
    pub(crate) const PREFIX: [u8; 1] = [2];

    pub(crate) fn key(fence: u64) -> Bytes {
        [&[2], &fence.to_be_bytes()[..]].concat().into()
    }

    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(12 + self.owner.len() + self.by.len() + self.key.encoded().len());
        row.extend_from_slice(&self.time.to_le_bytes());
        row.extend_from_slice(&length_of(&self.owner));
        row.extend_from_slice(&length_of(&self.by));
        row.extend_from_slice(self.owner.as_bytes());
        row.extend_from_slice(self.by.as_bytes());
        row.extend_from_slice(self.key.encoded());
        row
    }

    pub(crate) fn decode(row_key: &[u8], row: &[u8]) -> Result<Self> {
        let parts = || {
            let (time, rest) = row.split_first_chunk::<8>()?;
            let (owner_length, rest) = rest.split_first_chunk::<2>()?;
            let (by_length, rest) = rest.split_first_chunk::<2>()?;
            let (owner, rest) = rest.split_at_checked(usize::from(u16::from_le_bytes(*owner_length)))?;
            let (by, key) = rest.split_at_checked(usize::from(u16::from_le_bytes(*by_length)))?;
            Some(Self {
                key: Key::decode(key).ok()?,
                fence: u64::from_be_bytes(*row_key.last_chunk()?),
                owner: text(owner)?,
                by: text(by)?,
                time: i64::from_le_bytes(*time),
            })
        };
        parts().ok_or_else(|| corrupt("a row of the revoked claims is malformed"))
    }
}

/// In front of the rows of a group.
pub(crate) fn group_prefix(group: &str) -> Bytes {
    [&[3], group.as_bytes(), &[0]].concat().into()
}

/// The row that says that the claim of a key counts in a group.
pub(crate) fn group_key(group: &str, key: &[u8]) -> Bytes {
    [&[3], group.as_bytes(), &[0], key].concat().into()
}

/// Checks the name of a group.
pub(crate) fn check_group(group: &str) -> Result<()> {
    let what = match group.len() {
        0 => "it is empty".to_owned(),
        1..=GROUP_LENGTH_MAX if group.chars().any(char::is_control) => {
            "it has a control character".to_owned()
        }
        1..=GROUP_LENGTH_MAX => return Ok(()),
        length => format!("it has {length} bytes, more than {GROUP_LENGTH_MAX}"),
    };
    Err(ErrorKind::InvalidName { field: "group of claims", what }.into())
}

fn length_of(text: &str) -> [u8; 2] {
    u16::try_from(text.len()).unwrap_or(u16::MAX).to_le_bytes()
}

fn text(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
