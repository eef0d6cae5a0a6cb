//! What the registry has to say: [`FormatError`], [`Warning`], [`RegistryError`].

use thiserror::Error;

/// Names the field of a record that a finding is about: `data_format`.
pub(super) const DATA_FORMAT: &str = "data_format";
/// `media_type`.
pub(super) const MEDIA_TYPE: &str = "media_type";
/// `type_identifier`.
pub(super) const TYPE_IDENTIFIER: &str = "type_identifier";

/// The longest piece of a caller's string that an error repeats, in characters.
const SHOWN_MAX: usize = 80;

/// Returns the text as an error shows it: bounded, however long the caller's string was.
pub(super) fn shown(text: &str) -> String {
    match text.char_indices().nth(SHOWN_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
    }
}

/// Tells why a strict check refuses a record's format fields.
///
/// Under [`Strictness::Warn`](super::Strictness::Warn) the same findings come back as
/// [`Warning::Tolerated`], and the record is stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum FormatError {
    /// A field was given, but blank.
    #[error("{field} is blank: expected a name, got nothing; name it, or leave it out to have it inferred")]
    MissingField {
        /// The record's field.
        field: &'static str,
    },
    /// The registry has no such format.
    #[error("data_format: expected a name that the registry knows, got {got:?}; {}", remedy(suggestion.as_deref()))]
    UnknownFormat {
        /// The name as it was given, shortened if very long.
        got: String,
        /// The known name that was probably meant (it differs by upper-case letters).
        suggestion: Option<String>,
    },
    /// The registry has no such type identifier.
    #[error(
        "type_identifier: expected a name that the registry knows, got {got:?}; use a known one, or add it to \
         the registry with a [[type]] entry"
    )]
    UnknownType {
        /// The name as it was given, shortened if very long.
        got: String,
    },
    /// Two fields contradict each other.
    #[error(
        "{field}: expected {expected} for data_format {format:?}, got {got:?}; correct one of the two, or extend \
         the registry's entry for {format:?}"
    )]
    Inconsistent {
        /// The field that does not fit the format.
        field: &'static str,
        /// The format, by its canonical name.
        format: String,
        /// What the format accepts: its media type, or its type identifiers separated by `, `.
        expected: String,
        /// What was given, shortened if very long.
        got: String,
    },
    /// A word is no [`Strictness`](super::Strictness).
    #[error("strictness: expected off, warn or strict, got {got:?}; use one of them")]
    UnknownStrictness {
        /// The word, shortened if very long.
        got: String,
    },
}

fn remedy(suggestion: Option<&str>) -> String {
    match suggestion {
        Some(name) => format!("names are lower-case: use {name:?}"),
        None => "use a known name, or add it to the registry with a [[format]] entry".to_owned(),
    }
}

impl FormatError {
    /// Returns the finding's number, which never changes its meaning: 1 unknown format, 2 unknown type,
    /// 3 blank field, 4 media type contradicts the format, 5 type contradicts the format. (6 and 7 are
    /// [`Warning::code`]'s.) 8 is a word that is no strictness.
    pub fn code(&self) -> u16 {
        match self {
            Self::UnknownFormat { .. } => 1,
            Self::UnknownType { .. } => 2,
            Self::MissingField { .. } => 3,
            Self::Inconsistent { field, .. } if *field == MEDIA_TYPE => 4,
            Self::Inconsistent { .. } => 5,
            Self::UnknownStrictness { .. } => 8,
        }
    }

    /// Returns the record's field that the finding is about.
    pub fn field(&self) -> &'static str {
        match self {
            Self::UnknownFormat { .. } => DATA_FORMAT,
            Self::UnknownType { .. } => TYPE_IDENTIFIER,
            Self::UnknownStrictness { .. } => "strictness",
            Self::MissingField { field } | Self::Inconsistent { field, .. } => field,
        }
    }
}

/// Tells what is odd about a record's format fields that does not keep it from being stored.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum Warning {
    /// What a strict check would have refused.
    #[error(transparent)]
    Tolerated(#[from] FormatError),
    /// The key's extension belongs to another format than the declared one.
    #[error(
        "key: extension {extension:?} says {expected:?}, data_format says {got:?}; rename the key or correct \
         data_format (which is what readers go by)"
    )]
    Extension {
        /// The key's extension, as it was given.
        extension: String,
        /// The format of that extension.
        expected: String,
        /// The declared format.
        got: String,
    },
    /// The payload begins like another format than the declared one.
    #[error(
        "payload: begins like {got:?}, data_format says {expected:?}; correct data_format, or check what wrote \
         the bytes"
    )]
    Content {
        /// The declared format.
        expected: String,
        /// The format whose magic number the payload has.
        got: String,
    },
}

impl Warning {
    /// Returns the warning's number, which never changes its meaning: 1 to 5 as
    /// [`FormatError::code`], 6 extension against format, 7 content against format.
    pub fn code(&self) -> u16 {
        match self {
            Self::Tolerated(error) => error.code(),
            Self::Extension { .. } => 6,
            Self::Content { .. } => 7,
        }
    }
}

/// Tells why a registry document was refused.
///
/// Lines count from 1; line 0 stands for an entry of the registry that was to be extended.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// The text is not TOML, or not of a registry's shape.
    #[error("registry document, line {line}: {message}; correct that line")]
    Syntax {
        /// Where.
        line: usize,
        /// What the parser expected and got.
        message: String,
    },
    /// The document has a layout that this version of larder does not read.
    #[error(
        "registry document: expected version = {supported}, got {got}; open it with the larder that wrote it"
    )]
    Version {
        /// The document's version.
        got: u32,
        /// The only version that is read.
        supported: u32,
    },
    /// Something passes a limit.
    #[error(
        "registry document, line {line}: {what}: expected at most {limit}, got {got}; shorten or split it"
    )]
    TooMuch {
        /// Where.
        line: usize,
        /// What is counted.
        what: &'static str,
        /// The limit.
        limit: usize,
        /// The count.
        got: usize,
    },
    /// A name, media type or extension is not well formed.
    #[error("registry document, line {line}: {field}: expected {expected}, got {got:?}; rename it")]
    Name {
        /// Where.
        line: usize,
        /// The field.
        field: &'static str,
        /// The rule for such names.
        expected: &'static str,
        /// The name, shortened if very long.
        got: String,
    },
    /// Two entries claim the same name.
    #[error(
        "registry document, line {line}: {field} {name:?}: expected one owner, got {first:?} and {second:?}; take \
         it from one of the two (an entry of the same name overrides the shipped one's lists)"
    )]
    Duplicate {
        /// Where the later of the two stands.
        line: usize,
        /// The field.
        field: &'static str,
        /// What both claim.
        name: String,
        /// The format or type that claimed it first.
        first: String,
        /// The format or type that claims it too.
        second: String,
    },
    /// An entry names a format or type that is not there.
    #[error(
        "registry document, line {line}: {field}: expected a name that the registry has, got {got:?}; correct it \
         or add the entry"
    )]
    Unresolved {
        /// Where.
        line: usize,
        /// The field.
        field: &'static str,
        /// The name, shortened if very long.
        got: String,
    },
    /// A field that the entry cannot do without is absent, or empty.
    #[error("registry document, line {line}: format {format:?}: expected {field}, got none; add it")]
    Incomplete {
        /// Where.
        line: usize,
        /// The format.
        format: String,
        /// The field.
        field: &'static str,
    },
    /// A magic number cannot be read.
    #[error(
        "registry document, line {line}: magic {got:?}: {reason}; write [OFFSET:]HEX with ?? for any byte and * \
         for any gap, like \"52494646????????57454250\", within the first {window} bytes"
    )]
    Magic {
        /// Where.
        line: usize,
        /// The pattern, shortened if very long.
        got: String,
        /// What is wrong with it.
        reason: &'static str,
        /// How many bytes of a payload are looked at.
        window: usize,
    },
}
