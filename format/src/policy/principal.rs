//! Who acts: a name and the groups that the embedding application says it is in.

use std::fmt;

use super::GROUP_PREFIX;
use crate::pattern::{MAX_LITERAL_BYTES, check_segment};

/// The name of a principal: one valid key segment, compared byte by byte.
///
/// A name that a rules document could not write as itself is refused: one with `*`, `{` or `}`, or that begins
/// with `group:`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PrincipalName(Box<str>);

impl PrincipalName {
    /// Checks a name.
    ///
    /// # Errors
    /// [`PrincipalError`] if it is no key segment, or reserved.
    pub fn parse(name: &str) -> Result<Self, PrincipalError> {
        if name.is_empty() {
            return Err(PrincipalError::Empty);
        }
        if name.len() > MAX_LITERAL_BYTES {
            return Err(PrincipalError::TooLong { bytes: name.len() });
        }
        if name.contains('/') || check_segment(name).is_err() {
            return Err(PrincipalError::NotASegment { name: name.to_owned() });
        }
        if name.starts_with(GROUP_PREFIX) || name.contains(['*', '{', '}']) {
            return Err(PrincipalError::Reserved { name: name.to_owned() });
        }
        Ok(Self(name.into()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PrincipalName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A principal with its groups. Larder does not authenticate: whoever embeds it states both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Principal {
    name: PrincipalName,
    groups: Vec<PrincipalName>,
}

impl Principal {
    /// A principal in no group.
    ///
    /// # Errors
    /// As [`PrincipalName::parse`].
    pub fn new(name: &str) -> Result<Self, PrincipalError> {
        Ok(Self { name: PrincipalName::parse(name)?, groups: Vec::new() })
    }

    /// The same principal in these groups, named without `group:`.
    ///
    /// # Errors
    /// As [`PrincipalName::parse`], which group names follow too.
    pub fn with_groups<'g>(self, groups: impl IntoIterator<Item = &'g str>) -> Result<Self, PrincipalError> {
        let mut groups = groups.into_iter().map(PrincipalName::parse).collect::<Result<Vec<_>, _>>()?;
        groups.sort();
        groups.dedup();
        Ok(Self { name: self.name, groups })
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name.0
    }

    /// Its groups, sorted.
    pub fn groups(&self) -> impl Iterator<Item = &str> {
        self.groups.iter().map(PrincipalName::as_str)
    }
}

impl From<PrincipalName> for Principal {
    fn from(name: PrincipalName) -> Self {
        Self { name, groups: Vec::new() }
    }
}

/// A text that cannot name a principal or a group.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrincipalError {
    /// No text.
    #[error("the name of a principal or group may not be empty; give one")]
    Empty,
    /// Longer than a key segment.
    #[error("a name of {bytes} bytes, at most {MAX_LITERAL_BYTES}; shorten it")]
    TooLong {
        /// How long it is.
        bytes: usize,
    },
    /// `.`, `..`, or with a slash or a control character.
    #[error(
        "{name:?} is not one segment of a key; use a name without \"/\" and control characters, not \".\", \"..\""
    )]
    NotASegment {
        /// The name.
        name: String,
    },
    /// What rules use otherwise.
    #[error(
        "{name:?} means something else in rules; use a name without \"*\", \"{{\", \"}}\" and \"group:\" in front"
    )]
    Reserved {
        /// The name.
        name: String,
    },
}
