//! Governing: rules, limits, and what is added to the registry.

use std::path::{Path, PathBuf};

use clap::Subcommand;
use larder::format::{ByteSize, Pattern, parse_combined};
use larder::{DocumentKind, ErrorKind, Right};
use serde_json::json;

use crate::Context;
use crate::output::{Done, Failure, shown};

#[derive(Subcommand)]
pub(crate) enum Acl {
    /// Show the rules that are in force.
    Show {
        /// The store.
        file: PathBuf,
    },
    /// Set rules, and limits if there are any, from one document.
    Set {
        /// The store.
        file: PathBuf,
        /// The document, TOML.
        document: PathBuf,
    },
    /// Explain whether a principal (--as) may do something, and which rule decides.
    Explain {
        /// The store.
        file: PathBuf,
        /// The right: read, write, delete, list, admin, ...
        right: String,
        /// The key.
        key: String,
    },
}

impl Acl {
    pub(crate) fn run(self, context: &Context) -> Done {
        match self {
            Self::Show { file } => show(context, &file, DocumentKind::Rules),
            Self::Set { file, document } => {
                let text = std::fs::read_to_string(&document)?;
                let (rules, limits) = parse_combined(&text).map_err(|error| {
                    let what = error.to_string();
                    larder::Error::from(ErrorKind::InvalidDocument { document: "rules".to_owned(), what })
                })?;
                let (larder, session) = context.change(&file)?;
                let versions = session.write(|txn| {
                    let rules = txn.set_document(DocumentKind::Rules, &rules.to_toml())?;
                    let limits =
                        limits.map(|limits| txn.set_document(DocumentKind::Limits, &limits.to_toml()));
                    let limits = limits.transpose()?;
                    Ok((rules, limits))
                })?;
                larder.close()?;
                let (rules, limits) = versions.value;
                context.output.line(
                    || match limits {
                        Some(limits) => format!("  rules version {rules}, limits version {limits}"),
                        None => format!("  rules version {rules}"),
                    },
                    || json!({"rules": rules, "limits": limits}),
                )?;
                Ok(0)
            }
            Self::Explain { file, right, key } => {
                let Some(right) = Right::from_name(&right) else {
                    let known: Vec<&str> = Right::ALL.iter().filter_map(|right| right.name()).collect();
                    return Err(Failure::Other(format!("{right}: expected a right: {}", known.join(", "))));
                };
                let larder = larder::Options::new().open_read_only(&file)?;
                let whom = context.principal.as_deref().unwrap_or("root");
                let groups = context.groups.iter().map(String::as_str);
                let explanation = larder.root()?.explain(whom, groups, right, key.as_str())?;
                context.output.line(
                    || shown(&explanation.to_string()),
                    || {
                        json!({
                            "allowed": explanation.allowed, "principal": explanation.principal,
                            "right": explanation.right.to_string(), "key": explanation.key,
                            "by": explanation.decision().by.to_string(),
                        })
                    },
                )?;
                Ok(u8::from(!explanation.allowed))
            }
        }
    }
}

#[derive(Subcommand)]
pub(crate) enum Limits {
    /// Show the limits that are in force.
    Show {
        /// The store.
        file: PathBuf,
    },
    /// Set the limits, from a document; or one of them, which writes the document anew, without its comments.
    Set {
        /// The store.
        file: PathBuf,
        /// The document, TOML; with a size, the pattern of keys that it is for.
        what: String,
        /// How large a payload may be, such as 20MiB.
        #[arg(long, value_name = "SIZE", value_parser = size_of)]
        max_binary_size: Option<ByteSize>,
    },
}

fn size_of(text: &str) -> Result<ByteSize, String> {
    ByteSize::parse(text)
        .ok_or_else(|| "expected a whole number of bytes, such as 20MiB, 1.5GB, 500".to_owned())
}

impl Limits {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (file, what, size) = match self {
            Self::Show { file } => return show(context, &file, DocumentKind::Limits),
            Self::Set { file, what, max_binary_size } => (file, what, max_binary_size),
        };
        let Some(size) = size else {
            return Document::Set { file, document: what.into() }.run(context, DocumentKind::Limits);
        };
        let on = Pattern::parse(&what).map_err(|error| Failure::Other(format!("{what}: {error}")))?;
        set(context, &file, DocumentKind::Limits, |old| {
            let limits = larder::format::Limits::parse(old).map_err(|error| {
                let what = error.to_string();
                larder::Error::from(ErrorKind::InvalidDocument { document: "limits".to_owned(), what })
            })?;
            Ok(limits.with_max_binary_size(on, size.0).to_toml())
        })
    }
}

#[derive(Subcommand)]
pub(crate) enum Document {
    /// Show the document that is in force.
    Show {
        /// The store.
        file: PathBuf,
    },
    /// Set the document.
    Set {
        /// The store.
        file: PathBuf,
        /// The document, TOML.
        document: PathBuf,
    },
}

impl Document {
    pub(crate) fn run(self, context: &Context, kind: DocumentKind) -> Done {
        match self {
            Self::Show { file } => show(context, &file, kind),
            Self::Set { file, document } => {
                let text = std::fs::read_to_string(&document)?;
                set(context, &file, kind, |_| Ok(text))
            }
        }
    }
}

/// Sets a document, made from the one that is in force.
fn set(
    context: &Context,
    file: &Path,
    kind: DocumentKind,
    make: impl FnOnce(&str) -> Result<String, Failure>,
) -> Done {
    let (larder, session) = context.change(file)?;
    let text = make(&session.document(kind)?.text)?;
    let version = session.set_document(kind, &text)?.value;
    larder.close()?;
    context
        .output
        .line(|| format!("  {} version {version}", kind.name()), || json!({ kind.name(): version }))?;
    Ok(0)
}

fn show(context: &Context, file: &Path, kind: DocumentKind) -> Done {
    let (_larder, session) = context.look(file)?;
    let document = session.document(kind)?;
    context.output.line(
        || shown(document.text.trim_end()),
        || {
            json!({
                "document": kind.name(), "version": document.version, "time_us": document.time,
                "principal": document.principal, "text": document.text,
            })
        },
    )?;
    Ok(0)
}
