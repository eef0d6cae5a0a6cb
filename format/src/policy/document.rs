//! Reading a TOML document field by field, so that every refusal has its line and its field.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::MAX_DOCUMENT_BYTES;
use super::error::{RulesError, RulesErrorKind};
use crate::pattern::Pattern;

/// The most patterns one `on` may list.
const MAX_LIST: usize = 10_000;

pub(crate) struct Document<'d> {
    text: &'d str,
    root: Spanned<DeTable<'d>>,
}

impl<'d> Document<'d> {
    pub(crate) fn parse(text: &'d str) -> Result<Self, RulesError> {
        if text.len() > MAX_DOCUMENT_BYTES {
            let kind = RulesErrorKind::DocumentTooLarge { bytes: text.len(), limit: MAX_DOCUMENT_BYTES };
            return Err(RulesError { line: 1, field: "document".to_owned(), kind });
        }
        let root = DeTable::parse(text).map_err(|error| RulesError {
            line: line_of(text, error.span().map_or(0, |span| span.start)),
            field: "document".to_owned(),
            kind: RulesErrorKind::Syntax { message: error.message().to_owned() },
        })?;
        Ok(Self { text, root })
    }

    pub(crate) fn root(&self) -> Table<'_> {
        Table { text: self.text, path: String::new(), start: 0, table: self.root.get_ref() }
    }
}

fn line_of(text: &str, byte: usize) -> usize {
    text.bytes().take(byte).filter(|&b| b == b'\n').count() + 1
}

/// A table and where it is.
pub(crate) struct Table<'t> {
    text: &'t str,
    path: String,
    start: usize,
    table: &'t DeTable<'t>,
}

impl<'t> Table<'t> {
    fn at(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}, {name}", self.path) }
    }

    pub(crate) fn refuse(&self, kind: RulesErrorKind) -> RulesError {
        RulesError { line: line_of(self.text, self.start), field: self.path.clone(), kind }
    }

    /// Refuses every field but these.
    pub(crate) fn only(&self, known: &[&str], expected: &'static str) -> Result<(), RulesError> {
        let unknown =
            self.table.iter().map(|(name, _)| name).filter(|name| !known.contains(&&**name.get_ref()));
        match unknown.min_by_key(|name| name.span().start) {
            None => Ok(()),
            Some(name) => Err(RulesError {
                line: line_of(self.text, name.span().start),
                field: self.at(&cut(name.get_ref())),
                kind: RulesErrorKind::UnknownField { expected },
            }),
        }
    }

    pub(crate) fn get(&self, name: &str) -> Option<Item<'t>> {
        let (_, value) = self.table.iter().find(|(known, _)| known.get_ref() == name)?;
        Some(Item { text: self.text, path: self.at(name), start: value.span().start, value: value.get_ref() })
    }

    pub(crate) fn required(&self, name: &str, expected: &'static str) -> Result<Item<'t>, RulesError> {
        self.get(name).ok_or_else(|| RulesError {
            line: line_of(self.text, self.start),
            field: self.at(name),
            kind: RulesErrorKind::Missing { expected },
        })
    }

    /// The tables of an array of tables, `[[name]]`; none if it is not there.
    pub(crate) fn tables(&self, name: &'static str, limit: usize) -> Result<Vec<Table<'t>>, RulesError> {
        let Some(item) = self.get(name) else { return Ok(Vec::new()) };
        let items = item.items()?;
        if items.len() > limit {
            let kind = RulesErrorKind::TooMany { what: "tables", count: items.len(), limit };
            return Err(item.refuse(kind));
        }
        let tables = items.into_iter().enumerate().map(|(at, item)| match item.value {
            DeValue::Table(table) => {
                Ok(Table { text: self.text, path: format!("{name} {}", at + 1), start: item.start, table })
            }
            other => Err(item.wrong_type("a table", other)),
        });
        tables.collect()
    }

    /// The patterns of a field that takes one or a list.
    pub(crate) fn patterns(&self, name: &str) -> Result<Vec<Pattern>, RulesError> {
        let item = self.required(name, "a pattern like \"recipes/**\", or a list of them")?;
        let items = match item.value {
            DeValue::String(_) => vec![item],
            DeValue::Array(_) => item.items_not_empty()?,
            other => return Err(item.wrong_type("a pattern or a list of patterns", other)),
        };
        let parse = |item: Item<'_>| {
            Pattern::parse(item.text()?).map_err(|error| item.refuse(RulesErrorKind::Pattern(error)))
        };
        items.into_iter().map(parse).collect()
    }
}

/// A value and where it is.
pub(crate) struct Item<'t> {
    text: &'t str,
    path: String,
    start: usize,
    value: &'t DeValue<'t>,
}

impl<'t> Item<'t> {
    pub(crate) fn refuse(&self, kind: RulesErrorKind) -> RulesError {
        RulesError { line: line_of(self.text, self.start), field: self.path.clone(), kind }
    }

    pub(crate) fn refuse_value(&self, expected: &'static str, got: &str) -> RulesError {
        self.refuse(RulesErrorKind::WrongValue { expected, got: cut(got) })
    }

    fn wrong_type(&self, expected: &'static str, got: &DeValue<'_>) -> RulesError {
        let got = match got {
            DeValue::String(_) => "a string",
            DeValue::Integer(_) => "an integer",
            DeValue::Float(_) => "a float",
            DeValue::Boolean(_) => "a boolean",
            DeValue::Datetime(_) => "a date or time",
            DeValue::Array(_) => "a list",
            DeValue::Table(_) => "a table",
        };
        self.refuse(RulesErrorKind::WrongType { expected, got })
    }

    pub(crate) fn text(&self) -> Result<&'t str, RulesError> {
        match self.value {
            DeValue::String(text) => Ok(text),
            other => Err(self.wrong_type("a string", other)),
        }
    }

    /// The integer, if it is one that fits.
    pub(crate) fn integer(&self) -> Option<i64> {
        match self.value {
            DeValue::Integer(integer) => i64::from_str_radix(integer.as_str(), integer.radix()).ok(),
            _ => None,
        }
    }

    /// The integer from 0, or why it is none.
    pub(crate) fn unsigned(&self, expected: &'static str) -> Result<u64, RulesError> {
        match self.value {
            DeValue::Integer(integer) => self
                .integer()
                .and_then(|number| u64::try_from(number).ok())
                .ok_or_else(|| self.refuse_value(expected, integer.as_str())),
            other => Err(self.wrong_type(expected, other)),
        }
    }

    pub(crate) fn is_integer(&self) -> bool {
        matches!(self.value, DeValue::Integer(_))
    }

    pub(crate) fn items(&self) -> Result<Vec<Item<'t>>, RulesError> {
        let DeValue::Array(array) = self.value else { return Err(self.wrong_type("a list", self.value)) };
        let items: Vec<_> = array
            .iter()
            .map(|value| Item {
                text: self.text,
                path: self.path.clone(),
                start: value.span().start,
                value: value.get_ref(),
            })
            .collect();
        // `[[rule]]` has its own, named limit and message; MAX_LIST + 1 is past every one of them.
        if items.len() > MAX_LIST && !matches!(items.first().map(|item| item.value), Some(DeValue::Table(_)))
        {
            let kind = RulesErrorKind::TooMany { what: "entries", count: items.len(), limit: MAX_LIST };
            return Err(self.refuse(kind));
        }
        Ok(items)
    }

    pub(crate) fn items_not_empty(&self) -> Result<Vec<Item<'t>>, RulesError> {
        let items = self.items()?;
        if items.is_empty() { Err(self.refuse(RulesErrorKind::EmptyList)) } else { Ok(items) }
    }
}

/// The first 80 characters: errors stay small, whatever the document has.
pub(crate) fn cut(text: &str) -> String {
    text.chars().take(80).collect()
}

/// A TOML string.
pub(crate) fn quoted(text: &str) -> String {
    toml::Value::String(text.to_owned()).to_string()
}

/// `name = [a, b]`.
pub(crate) fn write_list(out: &mut String, name: &str, items: impl Iterator<Item = String>) {
    out.push_str(name);
    out.push_str(" = [");
    for (at, item) in items.enumerate() {
        if at > 0 {
            out.push_str(", ");
        }
        out.push_str(&item);
    }
    out.push_str("]\n");
}
