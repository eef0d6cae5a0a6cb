//! Retention: how much of what is kept, and for how long. What a document has is at [`Retention`].

use std::fmt;

use crate::limits::parse_size;
use crate::pattern::Pattern;
use crate::policy::RulesError;
use crate::policy::document::{Document, Item};
use crate::record::{Micros, Record, RecordFlags};
use crate::status::Status;

/// The most `[[retain]]` tables that a document may have.
pub const MAX_RETENTION_RULES: usize = 1_000;

const EXPECTED_AGE: &str = "a time like \"90 s\", \"15 min\", \"12 h\" or \"7 d\"";
const UNITS: [(&str, i64); 4] =
    [("s", 1_000_000), ("min", 60_000_000), ("h", 3_600_000_000), ("d", 86_400_000_000)];

/// One rule: of what it matches, what is too old or too much goes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct RetentionRule {
    /// The keys that it is about.
    pub on: Vec<Pattern>,
    /// Only assets of these statuses; all that something makes again, if it names none.
    pub statuses: Vec<Status>,
    /// How long ago an asset may have been changed, in microseconds.
    pub age_max: Option<Micros>,
    /// How many may be kept.
    pub count_max: Option<u64>,
    /// How many bytes of payloads may be kept.
    pub bytes_max: Option<u64>,
}

impl RetentionRule {
    /// Tells whether the rule is about this encoded key.
    #[must_use]
    pub fn matches(&self, key: &[u8]) -> bool {
        self.on.iter().any(|pattern| pattern.matches_encoded(key))
    }

    /// Tells whether the rule may remove an asset. What is pinned it never may; what nothing makes again only if it
    /// names its status.
    #[must_use]
    pub fn may_remove<B: AsRef<[u8]>>(&self, record: &Record<B>) -> bool {
        if record.is_directory() || record.flags().contains(RecordFlags::PINNED) {
            return false;
        }
        if self.statuses.is_empty() {
            !record.is_irreplaceable()
        } else {
            self.statuses.contains(&record.status())
        }
    }
}

/// Rules about how much of what is kept. Of several that match a key, the first decides.
///
/// ```toml
/// [[retain]]
/// on = "cache/**"                  # one pattern or a list
/// max_age = "7 d"                  # since the last change: s, min, h or d
/// max_bytes = "1 GiB"              # the oldest go first, and before them what has expired
/// max_count = 10000
/// [[retain]]
/// on = "logs/**"
/// status = ["source"]              # only these; what nothing makes again goes only if its status is named
/// max_age = "90 d"
/// ```
///
/// At least one of `max_age`, `max_bytes` and `max_count` is there. What is pinned never goes, and counts.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Retention {
    /// The rules, in their order.
    pub rules: Vec<RetentionRule>,
}

impl Retention {
    /// Makes the rule that keeps all payloads together within so many bytes.
    #[must_use]
    pub fn within(bytes: u64) -> Self {
        let on = Pattern::parse("**").into_iter().collect();
        let rule = RetentionRule {
            on,
            statuses: Vec::new(),
            age_max: None,
            count_max: None,
            bytes_max: Some(bytes),
        };
        Self { rules: vec![rule] }
    }

    /// Parses a document.
    ///
    /// # Errors
    /// [`RulesError`] with line and field; unknown fields are refused.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.only(&["retain"], "[[retain]]")?;
        let mut rules = Vec::new();
        for table in root.tables("retain", MAX_RETENTION_RULES)? {
            let known = ["on", "status", "max_age", "max_count", "max_bytes"];
            table.only(&known, "on, status, max_age, max_count, max_bytes")?;
            let bounds = ["max_age", "max_count", "max_bytes"];
            if bounds.iter().all(|name| table.get(name).is_none()) {
                return Err(table
                    .required("max_age", "max_age, max_count or max_bytes")
                    .err()
                    .unwrap_or_else(|| table.refuse(crate::policy::RulesErrorKind::EmptyList)));
            }
            let statuses = match table.get("status") {
                None => Vec::new(),
                Some(item) => item
                    .items_not_empty()?
                    .into_iter()
                    .map(|item| Ok(Status::from_name(item.text()?)))
                    .collect::<Result<_, RulesError>>()?,
            };
            rules.push(RetentionRule {
                on: table.patterns("on")?,
                statuses,
                age_max: table.get("max_age").map(|item| parse_age(&item)).transpose()?,
                count_max: table
                    .get("max_count")
                    .map(|item| item.unsigned("an integer from 0"))
                    .transpose()?,
                bytes_max: table.get("max_bytes").map(|item| parse_size(&item)).transpose()?,
            });
        }
        Ok(Self { rules })
    }

    /// Gives the first rule that is about this encoded key, with its place.
    #[must_use]
    pub fn rule_of(&self, key: &[u8]) -> Option<(usize, &RetentionRule)> {
        self.rules.iter().enumerate().find(|(_, rule)| rule.matches(key))
    }
}

pub(crate) fn parse_age(item: &Item<'_>) -> Result<Micros, RulesError> {
    let text = item.text()?;
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text.strip_prefix(digits).unwrap_or_default();
    let number: Option<i64> =
        digits.strip_suffix(' ').unwrap_or(digits).parse().ok().filter(|number| *number >= 0);
    let unit = UNITS.iter().find(|(name, _)| *name == unit).map(|(_, unit)| *unit);
    let age = number.zip(unit).and_then(|(number, unit)| number.checked_mul(unit));
    age.ok_or_else(|| item.refuse_value(EXPECTED_AGE, text))
}

/// Why an asset goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum RetentionReason {
    /// It is too old.
    Age,
    /// There are too many.
    Count,
    /// They are too large together.
    Bytes,
}

impl RetentionReason {
    /// Gives its name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Age => "age",
            Self::Count => "count",
            Self::Bytes => "bytes",
        }
    }
}

impl fmt::Display for RetentionReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_read_field_by_field() {
        let text = "[[retain]]\non = [\"cache/**\", \"tmp/*\"]\nmax_age = \"7 d\"\nmax_bytes = \"1 KiB\"\n\
                    [[retain]]\non = \"**\"\nstatus = [\"source\", \"drying\"]\nmax_count = 3\n";
        let retention = Retention::parse(text).unwrap();
        assert_eq!(retention.rules[0].age_max, Some(7 * 86_400_000_000));
        assert_eq!((retention.rules[0].bytes_max, retention.rules[0].count_max), (Some(1_024), None));
        assert_eq!(retention.rules[1].statuses, [Status::Source, Status::Custom("drying".into())]);
        assert_eq!(retention.rule_of(b"tmp\0a\0").unwrap().0, 0);
        assert_eq!(retention.rule_of(b"tmp\0a\0b\0").unwrap().0, 1);
        assert!(Retention::parse("").unwrap().rules.is_empty());
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [
            ("[[retain]]\nmax_age = \"7 d\"\n", 1),
            ("[[retain]]\non = \"**\"\n", 1),
            ("[[retain]]\non = \"**\"\nmax_age = \"7 weeks\"\n", 3),
            ("[[retain]]\non = \"**\"\nmax_age = \"-7 d\"\n", 3),
            ("[[retain]]\non = \"**\"\nmax_age = \"9223372036854775807 d\"\n", 3),
            ("[[retain]]\non = \"**\"\nmax_bytes = \"much\"\n", 3),
            ("[[retain]]\non = \"a*\"\nmax_count = 1\n", 2),
            ("[[retain]]\non = \"**\"\nmax_count = 1\nkeep = 2\n", 4),
            ("[[retain]]\non = \"**\"\nmax_count = 1\nstatus = []\n", 4),
            ("keep = 1\n", 1),
        ] {
            assert_eq!(Retention::parse(text).unwrap_err().line, line, "{text}");
        }
    }
    #[test]
    fn ages_are_whole_numbers_of_a_unit() {
        let age = |text: &str| {
            let text = format!("[[retain]]\non = \"**\"\nmax_age = \"{text}\"\n");
            Retention::parse(&text).ok().and_then(|retention| retention.rules[0].age_max)
        };
        for (text, expected) in [
            ("0 s", Some(0)),
            ("90 s", Some(90_000_000)),
            ("15min", Some(900_000_000)),
            ("12 h", Some(43_200_000_000)),
            ("106751991 d", Some(106_751_991 * 86_400_000_000)),
            ("106751992 d", None),
            ("7", None),
            ("d", None),
            ("7  d", None),
            ("1.5 d", None),
            ("-0001 s", None),
        ] {
            assert_eq!(age(text), expected, "{text}");
        }
    }

    #[test]
    fn a_rule_removes_what_can_be_made_again_or_has_a_status_that_it_names() {
        use crate::record::{AbsentReason, ContentHash, PayloadState, RecordBuilder};
        let record = |status: &Status, flags, is_directory| {
            let payload = match is_directory {
                true => PayloadState::Absent(AbsentReason::Directory),
                false => PayloadState::Stored { length: 1, hash: ContentHash::of(b"a"), id: 1 },
            };
            let mut builder = RecordBuilder::new(payload);
            builder.set_status(status.clone());
            builder.flags = flags;
            builder.encode(b"").unwrap().0
        };
        let any = Retention::within(10).rules.remove(0);
        let sources = RetentionRule { statuses: vec![Status::Source], ..any.clone() };
        assert!(any.matches(b"a\0b\0") && any.bytes_max == Some(10));
        let none = RecordFlags::default();
        for (status, flags, by_any, by_sources) in [
            (Status::Ready, none, true, false),
            (Status::Source, none, false, true),
            (Status::Source, RecordFlags::HAS_RECIPE, true, true),
            (Status::Ready, RecordFlags::PINNED, false, false),
            (Status::Source, RecordFlags::PINNED, false, false),
        ] {
            let asset = record(&status, flags, false);
            assert_eq!(
                (any.may_remove(&asset), sources.may_remove(&asset)),
                (by_any, by_sources),
                "{status}"
            );
            let directory = record(&status, flags, true);
            assert!(!any.may_remove(&directory) && !sources.may_remove(&directory), "{status}");
        }
    }

    #[test]
    fn reasons_have_names() {
        let reasons = [RetentionReason::Age, RetentionReason::Count, RetentionReason::Bytes];
        assert_eq!(reasons.map(|reason| reason.to_string()), ["age", "count", "bytes"]);
    }
}
