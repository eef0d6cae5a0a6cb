//! How things are shown: to people, and to programs.

use std::io::{self, Write};

use larder::ErrorKind;
use larder::format::ByteSize;
use serde_json::{Value, json};

/// Why a verb was not carried out.
pub(crate) enum Failure {
    Larder(larder::Error),
    Io(io::Error),
    Other(String),
}

impl From<larder::Error> for Failure {
    fn from(error: larder::Error) -> Self {
        Self::Larder(error)
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The exit code of a verb that was carried out.
pub(crate) type Done = Result<u8, Failure>;

/// Where a verb writes to.
#[derive(Clone, Copy)]
pub(crate) struct Output {
    pub(crate) json: bool,
}

impl Output {
    /// Prints a line of text, or in its place a JSON object.
    pub(crate) fn line(self, text: impl FnOnce() -> String, value: impl FnOnce() -> Value) -> io::Result<()> {
        let mut out = io::stdout().lock();
        if self.json { writeln!(out, "{}", value()) } else { writeln!(out, "{}", text()) }
    }

    /// Says on stderr why a verb was not carried out.
    pub(crate) fn failure(self, failure: &Failure) {
        let (code, name, message) = match failure {
            Failure::Larder(error) => (error.code(), error.kind().name(), error.to_string()),
            Failure::Io(error) => (0, "Io", error.to_string()),
            Failure::Other(message) => (0, "Usage", message.clone()),
        };
        // Nothing is left to be done where even this cannot be written.
        let _ = if self.json {
            let error = json!({"error": {"code": code, "name": name, "message": message}});
            writeln!(io::stderr(), "{error}")
        } else {
            writeln!(io::stderr(), "larder: {}{}", shown(&message), shown(&remedy(failure)))
        };
    }
}

/// Says which verb helps, where one does.
fn remedy(failure: &Failure) -> String {
    let Failure::Larder(error) = failure else { return String::new() };
    let ErrorKind::BinaryTooLarge { by, .. } = error.kind() else { return String::new() };
    let quoted = by.split_once('"').and_then(|(_, rest)| rest.rsplit_once('"'));
    let pattern = quoted.map_or("**", |(pattern, _)| pattern);
    // What a shell reads otherwise is not suggested.
    let pattern = if pattern.contains(['\'', '"', '\\']) { "PATTERN" } else { pattern };
    format!("\n  raise the limit with: larder limits set FILE '{pattern}' --max-binary-size SIZE")
}

/// Shows a text without what would mislead a terminal: control characters, and those that turn the direction of
/// writing or take no room.
pub(crate) fn shown(text: &str) -> String {
    let misleads = |c: char| {
        (c.is_control() && c != '\n')
            || matches!(c, '\u{200B}'..='\u{200F}' | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FEFF}')
    };
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        if misleads(c) {
            out.extend(c.escape_unicode())
        } else {
            out.push(c)
        }
        out
    })
}

/// Shows a number in groups of three digits.
pub(crate) fn number(number: u64) -> String {
    let digits = number.to_string();
    let first = digits.len() % 3;
    digits.char_indices().fold(String::new(), |mut out, (at, digit)| {
        if at > 0 && at % 3 == first {
            out.push(' ');
        }
        out.push(digit);
        out
    })
}

/// Shows a size in bytes.
pub(crate) fn size(bytes: u64) -> String {
    ByteSize(bytes).to_string()
}

/// Shows a time, in UTC.
pub(crate) fn time(micros: i64) -> String {
    match jiff::Timestamp::from_microsecond(micros) {
        Ok(time) => time.strftime("%Y-%m-%d %H:%M:%S UTC").to_string(),
        Err(_) => format!("{micros} us"),
    }
}
