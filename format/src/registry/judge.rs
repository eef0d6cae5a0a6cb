//! Inference and verdicts: what a write says about its format, filled in and checked.
//!
//! Blank counts as not given. Table 1.5 C of the Liquers requirements is what "fits" means.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use super::error::{MEDIA_TYPE, TYPE_IDENTIFIER, shown};
use super::sniff::{SNIFF_LEN, looks_textual};
use super::{Format, FormatError, Registry, Warning, document, essence, lowered};

/// The fewest fixed bytes of a magic number on which something is decided; of shorter ones, two bytes of
/// arbitrary data are too often an accident.
const CERTAIN_LEN: usize = 3;

/// Says how much a contradiction matters.
///
/// Written `off`, `warn` (also read as `permissive`) and `strict`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Strictness {
    /// Fields are filled in, nothing is checked.
    Off,
    /// Everything is stored, contradictions give warnings.
    #[default]
    #[serde(alias = "permissive")]
    Warn,
    /// Contradictions are refused.
    Strict,
}

impl fmt::Display for Strictness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Off => "off",
            Self::Warn => "warn",
            Self::Strict => "strict",
        })
    }
}

impl FromStr for Strictness {
    type Err = FormatError;

    /// Parses the written form.
    ///
    /// # Errors
    /// [`FormatError::UnknownStrictness`] for any other word.
    fn from_str(text: &str) -> Result<Self, FormatError> {
        match text {
            "off" => Ok(Self::Off),
            "warn" | "permissive" => Ok(Self::Warn),
            "strict" => Ok(Self::Strict),
            _ => Err(FormatError::UnknownStrictness { got: shown(text) }),
        }
    }
}

/// Holds what a writer says about a payload.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Claim<'a> {
    /// The key's extension, without its dot.
    pub extension: Option<&'a str>,
    /// The format: a name or alias of the registry.
    pub data_format: Option<&'a str>,
    /// The media type.
    pub media_type: Option<&'a str>,
    /// The type identifier.
    pub type_identifier: Option<&'a str>,
}

/// Holds a claim's fields, those that were not given filled in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Inferred<'a> {
    /// The format, canonical if the registry has it.
    pub data_format: Cow<'a, str>,
    /// The media type as it was given, else the format's.
    pub media_type: &'a str,
    /// The type identifier as it was given, else the format's.
    pub type_identifier: &'a str,
}

/// Holds what is to be stored, and what is odd about it.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
pub struct Verdict<'a> {
    /// The format, canonical if the registry has it.
    pub data_format: Cow<'a, str>,
    /// The media type as it was given, else the format's.
    pub media_type: &'a str,
    /// The type identifier as it was given, else the format's.
    pub type_identifier: &'a str,
    /// What does not fit, and was let through.
    pub warnings: Vec<Warning>,
}

/// A format and where it was found.
struct Chosen<'a> {
    /// `None`: the registry does not have it.
    format: Option<&'a Format>,
    name: Cow<'a, str>,
    declared: bool,
}

fn given(field: Option<&str>) -> Option<&str> {
    field.filter(|text| !text.trim().is_empty())
}

impl Registry {
    /// Fills in what a claim leaves out.
    ///
    /// The format is the declared one, else the extension's, else the media type's, else the one that the
    /// payload's first bytes have the magic number of (pass no bytes to rule that out), else
    /// [`Registry::fallback`]. Media type and type identifier follow from the format.
    pub fn infer<'a>(&'a self, claim: &Claim<'a>, head: &[u8]) -> Inferred<'a> {
        let chosen = self.choose(claim, head);
        let format = chosen.format.unwrap_or(self.fallback());
        Inferred {
            data_format: chosen.name,
            media_type: given(claim.media_type).unwrap_or(format.media_type()),
            type_identifier: given(claim.type_identifier).unwrap_or(format.default_type()),
        }
    }

    /// Fills in what a claim leaves out, and judges what it says.
    ///
    /// Refused when strict, else a warning: a blank (not an absent) type identifier; an unknown format or
    /// type; a media type or type that the format does not accept. Only ever a warning: an extension, or
    /// a magic number, of another format. The fallback format accepts every media type that the registry
    /// does not know, for it says nothing about the bytes. No message repeats the payload.
    ///
    /// # Errors
    /// [`FormatError`], and only if `strictness` is [`Strictness::Strict`].
    pub fn validate<'a>(
        &'a self,
        claim: &Claim<'a>,
        head: &[u8],
        strictness: Strictness,
    ) -> Result<Verdict<'a>, FormatError> {
        let chosen = self.choose(claim, head);
        let format = chosen.format.unwrap_or(self.fallback());
        let media_type = given(claim.media_type);
        let type_identifier = given(claim.type_identifier);

        let mut warnings = Vec::new();
        if strictness != Strictness::Off {
            let mut found = |fault: Option<FormatError>| match (fault, strictness) {
                (None, _) => Ok(()),
                (Some(error), Strictness::Strict) => Err(error),
                (Some(error), _) => {
                    warnings.push(Warning::Tolerated(error));
                    Ok(())
                }
            };
            let blank = claim.type_identifier.is_some() && type_identifier.is_none();
            found(blank.then_some(FormatError::MissingField { field: TYPE_IDENTIFIER }))?;
            found(self.format_fault(&chosen))?;
            found(media_type.zip(chosen.format).and_then(|(media, format)| self.media_fault(format, media)))?;
            found(type_identifier.and_then(|name| self.type_fault(chosen.format, name)))?;
            if let Some(format) = chosen.format {
                warnings.extend(self.extension_warning(claim, &chosen, format));
                warnings.extend(self.content_warning(format, head));
            }
        }
        Ok(Verdict {
            media_type: media_type.unwrap_or(format.media_type()),
            type_identifier: type_identifier.unwrap_or(format.default_type()),
            data_format: chosen.name,
            warnings,
        })
    }

    fn choose<'a>(&'a self, claim: &Claim<'a>, head: &[u8]) -> Chosen<'a> {
        if let Some(name) = given(claim.data_format) {
            return match self.lookup(name) {
                Some((format, name)) => Chosen { format: Some(format), name, declared: true },
                None => Chosen { format: None, name: Cow::Borrowed(name), declared: true },
            };
        }
        let by_extension = || self.format_of_extension(given(claim.extension)?);
        let by_media_type = || self.format_of_media_type(given(claim.media_type)?);
        let format = by_extension()
            .or_else(by_media_type)
            .or_else(|| self.certain(claim, head))
            .unwrap_or(self.fallback());
        Chosen { format: Some(format), name: Cow::Borrowed(format.name()), declared: false }
    }

    /// Returns the format by magic number, if the number is long enough and nothing given speaks against it.
    fn certain(&self, claim: &Claim<'_>, head: &[u8]) -> Option<&Format> {
        let (format, strength) = self.sniff_with_strength(head)?;
        let fits = given(claim.type_identifier).is_none_or(|name| format.accepts_type(name));
        // A media type that no format has is kept, with the fallback format.
        (strength >= CERTAIN_LEN && fits && given(claim.media_type).is_none()).then_some(format)
    }

    fn format_fault(&self, chosen: &Chosen<'_>) -> Option<FormatError> {
        if chosen.format.is_some() {
            return None;
        }
        let got = chosen.name.as_ref();
        let suggestion = (got.len() <= super::REGISTRY_NAME_LEN_MAX)
            .then(|| lowered(got))
            .filter(|low| low != got && self.canonical(low).is_some())
            .map(Cow::into_owned);
        Some(FormatError::UnknownFormat { got: shown(got), suggestion })
    }

    fn media_fault(&self, format: &Format, media_type: &str) -> Option<FormatError> {
        let unknown_to_all = || {
            format.name() == self.fallback().name()
                && document::is_media_type(essence(media_type))
                && self.format_of_media_type(media_type).is_none()
        };
        if format.accepts_media_type(media_type) || unknown_to_all() {
            return None;
        }
        Some(FormatError::Inconsistent {
            field: MEDIA_TYPE,
            format: format.name().to_owned(),
            expected: format.media_type().to_owned(),
            got: shown(media_type),
        })
    }

    fn type_fault(&self, format: Option<&Format>, name: &str) -> Option<FormatError> {
        let Some(known) = self.known_type(name) else {
            return Some(FormatError::UnknownType { got: shown(name) });
        };
        let format = format.filter(|format| !known.any_format && !format.accepts_type(name))?;
        Some(FormatError::Inconsistent {
            field: TYPE_IDENTIFIER,
            format: format.name().to_owned(),
            expected: format.types().join(", "),
            got: shown(name),
        })
    }

    fn extension_warning(&self, claim: &Claim<'_>, chosen: &Chosen<'_>, format: &Format) -> Option<Warning> {
        if !chosen.declared {
            return None;
        }
        let extension = claim.extension?;
        let expected = self.format_of_extension(extension)?;
        if expected.is_compatible_with(format) {
            return None;
        }
        Some(Warning::Extension {
            extension: extension.to_owned(),
            expected: expected.name().to_owned(),
            got: chosen.name.clone().into_owned(),
        })
    }

    /// Compares the declared format with the payload's magic number, where the bytes can contradict it:
    /// nothing contradicts the fallback, nor a binary format of unknown beginning; and what reads as text
    /// can be a text of any format.
    fn content_warning(&self, format: &Format, head: &[u8]) -> Option<Warning> {
        if format.name() == self.fallback().name() {
            return None;
        }
        let (sniffed, strength) = self.sniff_with_strength(head)?;
        if strength < CERTAIN_LEN || format.is_compatible_with(sniffed) {
            return None;
        }
        let contradicted = if format.is_text() {
            !looks_textual(head.get(..SNIFF_LEN).unwrap_or(head))
        } else {
            format.has_magic || !format.sniffs_as.is_empty()
        };
        contradicted
            .then(|| Warning::Content { expected: format.name().to_owned(), got: sniffed.name().to_owned() })
    }
}
