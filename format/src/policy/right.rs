//! Rights: an open, numbered set.

use std::fmt;

use super::document::Item;
use super::error::{RulesError, RulesErrorKind};

/// A right, by its number (1 to 63). The set is open: a number without a name here is of a later version, is kept,
/// and is denied.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Right(u8);

macro_rules! rights {
    ($($(#[$doc:meta])+ $constant:ident = $number:literal, $name:literal;)+) => {
        impl Right {
            $($(#[$doc])+ pub const $constant: Self = Self($number);)+

            /// Every right that has a name, by number.
            pub const ALL: &'static [Self] = &[$(Self::$constant),+];

            /// Its name in a rules document; `None` for a right that this version does not know.
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($number => Some($name),)+
                    _ => None,
                }
            }
        }
    };
}

rights! {
    /// To read a record or payload.
    READ = 1, "read";
    /// To create or change one.
    WRITE = 2, "write";
    /// To remove one.
    DELETE = 3, "delete";
    /// To learn that keys are there.
    LIST = 4, "list";
    /// To set rules, limits and the registry.
    ADMIN = 5, "admin";
    /// To claim a key for a time.
    CLAIM = 6, "claim";
    /// To cancel another's work.
    CANCEL = 7, "cancel";
    /// To put into a queue.
    ENQUEUE = 8, "enqueue";
    /// To take from a queue.
    CONSUME = 9, "consume";
    /// To create, pause, purge and drop queues and collections.
    MANAGE = 10, "manage";
}

impl Right {
    /// The right with this number, if it can be one: 1 to 63.
    pub fn from_number(number: u8) -> Option<Self> {
        (1..=63).contains(&number).then_some(Self(number))
    }

    /// The right with this name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|right| right.name() == Some(name))
    }

    /// Its number.
    pub fn number(self) -> u8 {
        self.0
    }
}

impl fmt::Display for Right {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "right {}", self.0),
        }
    }
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Rights(u64);

impl Rights {
    /// No right.
    pub const NONE: Self = Self(0);

    /// This set and one right.
    #[must_use]
    pub fn with(self, right: Right) -> Self {
        Self(self.0 | 1 << (right.0 & 63))
    }

    /// This set and another.
    #[must_use]
    pub fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether the right is in it.
    pub fn contains(self, right: Right) -> bool {
        self.0 >> (right.0 & 63) & 1 == 1
    }

    /// Whether no right is in it.
    pub fn is_empty(self) -> bool {
        self.0 == 0
    }

    /// The rights in it, by number.
    pub fn iter(self) -> impl Iterator<Item = Right> {
        (1..=63).map(Right).filter(move |right| self.contains(*right))
    }
}

impl FromIterator<Right> for Rights {
    fn from_iter<I: IntoIterator<Item = Right>>(rights: I) -> Self {
        rights.into_iter().fold(Self::NONE, Self::with)
    }
}

impl fmt::Display for Rights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, right) in self.iter().enumerate() {
            write!(f, "{}{right}", if at == 0 { "" } else { ", " })?;
        }
        Ok(())
    }
}

/// A right by name, or by number if it is of a later version.
pub(super) fn parse(item: &Item<'_>) -> Result<Right, RulesError> {
    if let Some(number) = item.integer() {
        return u8::try_from(number)
            .ok()
            .and_then(Right::from_number)
            .ok_or_else(|| item.refuse(RulesErrorKind::UnknownRight { got: number.to_string() }));
    }
    let name = item.text()?;
    Right::from_name(name)
        .ok_or_else(|| item.refuse(RulesErrorKind::UnknownRight { got: super::document::cut(name) }))
}
