//! The status of an asset, and what follows from it.
//!
//! The names and their properties are those of Liquers' asset manager, as of 2026; `Transient` and `Custom`
//! are larder's. The properties are data: one table, which the tests read too.

use std::fmt;

/// What stage of its life an asset is in. An open enum: names that this version does not know are kept.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
#[non_exhaustive]
pub enum Status {
    /// Nothing is known.
    None,
    /// An explicit directory: a record without payload.
    Directory,
    /// A recipe exists, and was never run.
    Recipe,
    /// Waiting in a queue.
    Submitted,
    /// Waiting for its inputs.
    Dependencies,
    /// Being computed.
    Processing,
    /// Being computed, with an intermediate value.
    Partial,
    /// The computation failed.
    Error,
    /// A writer was at work; found later it means that the write was torn.
    Storing,
    /// Produced by a recipe.
    Ready,
    /// Past its time; readable for recovery only.
    Expired,
    /// The computation was called off.
    Cancelled,
    /// Set from outside; no recipe makes it again. What a plain `put` gives.
    #[default]
    Source,
    /// Set from outside in place of what a recipe would make.
    Override,
    /// Has data that is never to be reused.
    Volatile,
    /// Existed in memory only, and may be lost.
    Transient,
    /// A name that this version has no properties for; it survives a round trip.
    Custom(String),
}

/// What a status implies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "a row of a table of yes-or-no properties")]
pub struct StatusProperties {
    /// A payload is expected to be there.
    pub has_data: bool,
    /// No one is working on it.
    pub is_finished: bool,
    /// Someone is working on it.
    pub is_processing: bool,
    /// Its dependencies are tracked.
    pub tracks_dependencies: bool,
    /// It may be served as a hit.
    pub is_loadable: bool,
    /// It can be cancelled.
    pub is_cancellable: bool,
}

impl StatusProperties {
    /// Gives what the status of a number implies; one that is not known implies nothing.
    #[must_use]
    pub fn of_number(number: u8) -> Self {
        Self::of_bits(TABLE.iter().find(|row| row.0 == number).map_or(0, |row| row.3))
    }

    fn of_bits(bits: u8) -> Self {
        Self {
            has_data: bits & DATA != 0,
            is_finished: bits & FINISHED != 0,
            is_processing: bits & PROCESSING != 0,
            tracks_dependencies: bits & TRACKS != 0,
            is_loadable: bits & LOADABLE != 0,
            is_cancellable: bits & CANCELLABLE != 0,
        }
    }
}

/// The number that stands for [`Status::Custom`] in a record.
pub const CUSTOM_STATUS: u8 = 255;

const DATA: u8 = 1;
const FINISHED: u8 = 2;
const PROCESSING: u8 = 4;
const TRACKS: u8 = 8;
const LOADABLE: u8 = 16;
const CANCELLABLE: u8 = 32;

/// Number on disk, status, name, properties. 0 is never a valid number.
const TABLE: [(u8, Status, &str, u8); 16] = [
    (1, Status::None, "none", 0),
    (2, Status::Directory, "directory", FINISHED),
    (3, Status::Recipe, "recipe", 0),
    (4, Status::Submitted, "submitted", CANCELLABLE),
    (5, Status::Dependencies, "dependencies", CANCELLABLE),
    (6, Status::Processing, "processing", PROCESSING | CANCELLABLE),
    (7, Status::Partial, "partial", DATA | PROCESSING | TRACKS | CANCELLABLE),
    (8, Status::Error, "error", FINISHED),
    (9, Status::Storing, "storing", TRACKS),
    (10, Status::Ready, "ready", DATA | FINISHED | TRACKS | LOADABLE),
    (11, Status::Expired, "expired", DATA | FINISHED),
    (12, Status::Cancelled, "cancelled", FINISHED),
    (13, Status::Source, "source", DATA | FINISHED | LOADABLE),
    (14, Status::Override, "override", DATA | FINISHED | LOADABLE),
    (15, Status::Volatile, "volatile", DATA | FINISHED),
    (16, Status::Transient, "transient", FINISHED),
];

impl Status {
    /// Gives all statuses that have a name of their own, in the order of their numbers.
    pub fn known() -> impl Iterator<Item = Status> {
        TABLE.iter().map(|(_, status, _, _)| status.clone())
    }

    /// Gives the number that stands for the status in a record.
    #[must_use]
    pub fn number(&self) -> u8 {
        self.row().map_or(CUSTOM_STATUS, |row| row.0)
    }

    /// Gives the status with this number; `custom` names it where the number is [`CUSTOM_STATUS`].
    ///
    /// A number from a later version becomes `Custom("status-NUMBER")`, so that it is shown, and never loadable.
    #[must_use]
    pub fn from_number(number: u8, custom: Option<&str>) -> Self {
        match TABLE.iter().find(|row| row.0 == number) {
            Some(row) => row.1.clone(),
            None => match custom {
                Some(name) => Self::Custom(name.to_owned()),
                None => Self::Custom(format!("status-{number}")),
            },
        }
    }

    /// Gives the status of this name, whatever the case of its letters; other names become [`Status::Custom`].
    #[must_use]
    pub fn from_name(name: &str) -> Self {
        match TABLE.iter().find(|row| row.2.eq_ignore_ascii_case(name)) {
            Some(row) => row.1.clone(),
            None => Self::Custom(name.to_owned()),
        }
    }

    /// Gives the name of the status, in lower case.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Custom(name) => name,
            known => known.row().map_or("none", |row| row.2),
        }
    }

    /// Gives what the status implies. A custom status implies nothing.
    #[must_use]
    pub fn properties(&self) -> StatusProperties {
        StatusProperties::of_bits(self.row().map_or(0, |row| row.3))
    }

    fn row(&self) -> Option<&'static (u8, Status, &'static str, u8)> {
        TABLE.iter().find(|row| row.1 == *self)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn s0_1_exactly_three_statuses_are_loadable() {
        let loadable: Vec<_> = Status::known().filter(|status| status.properties().is_loadable).collect();
        assert_eq!(loadable, [Status::Ready, Status::Source, Status::Override]);
    }

    #[test]
    fn numbers_and_names_round_trip() {
        for status in Status::known().chain([Status::Custom("drying".into())]) {
            assert_eq!(Status::from_name(status.name()), status);
            assert_eq!(Status::from_number(status.number(), Some(status.name())), status);
            assert_ne!(status.number(), 0);
        }
        assert_eq!(Status::from_number(77, None), Status::Custom("status-77".into()));
    }
    #[test]
    fn each_property_is_that_of_these_statuses_and_no_other() {
        let all: Vec<Status> = Status::known().collect();
        let with = |implied: fn(&StatusProperties) -> bool| {
            let names = all.iter().filter(|status| implied(&status.properties())).map(Status::name);
            names.collect::<Vec<_>>().join(" ")
        };
        assert_eq!(with(|it| it.has_data), "partial ready expired source override volatile");
        assert_eq!(
            with(|it| it.is_finished),
            "directory error ready expired cancelled source override volatile transient"
        );
        assert_eq!(with(|it| it.is_processing), "processing partial");
        assert_eq!(with(|it| it.tracks_dependencies), "partial storing ready");
        assert_eq!(with(|it| it.is_loadable), "ready source override");
        assert_eq!(with(|it| it.is_cancellable), "submitted dependencies processing partial");
    }

    #[test]
    fn a_number_implies_what_its_status_does_and_one_that_is_not_known_nothing() {
        for status in Status::known() {
            assert_eq!(StatusProperties::of_number(status.number()), status.properties(), "{status}");
        }
        for number in [0, 17, CUSTOM_STATUS] {
            assert_eq!(StatusProperties::of_number(number), StatusProperties::default(), "{number}");
        }
        assert_eq!(Status::Custom("ready, or nearly".into()).properties(), StatusProperties::default());
    }

    #[test]
    fn names_are_known_whatever_the_case_of_their_letters_and_others_are_kept() {
        assert_eq!(Status::from_name("ReaDY"), Status::Ready);
        assert_eq!(Status::from_name("Drying"), Status::Custom("Drying".into()));
        assert_eq!(Status::Custom("Drying".into()).number(), CUSTOM_STATUS);
        assert_eq!(Status::from_number(CUSTOM_STATUS, Some("Drying")).to_string(), "Drying");
        assert_eq!((Status::default(), Status::Ready.to_string()), (Status::Source, "ready".into()));
    }
}
