//! Changing: `put`, `rm`, `cp`, `mv`, `tag`.

use std::path::{Path, PathBuf};

use clap::Args;
use larder::{Draft, Options, TagPolicy};
use serde_json::json;

use crate::Context;
use crate::look::key;
use crate::output::{Done, number, shown, size};

#[derive(Args)]
pub(crate) struct Put {
    /// The store; made if it is not there.
    file: PathBuf,
    /// The key.
    key: String,
    /// The file whose content is stored; `-` or nothing for standard input.
    #[arg(default_value = "-")]
    source: PathBuf,
    /// The data format, a name of the registry; inferred from the key if not said.
    #[arg(long)]
    format: Option<String>,
    /// The media type; inferred from the format if not said.
    #[arg(long)]
    media_type: Option<String>,
    /// The type identifier; inferred from the format if not said.
    #[arg(long = "type")]
    type_identifier: Option<String>,
    /// A tag; may be given more than once.
    #[arg(long = "tag")]
    tags: Vec<String>,
}

impl Put {
    pub(crate) fn run(self, context: &Context) -> Done {
        let key = key(&self.key)?;
        let larder = Options::new().open(&self.file)?;
        let session = context.session(&larder)?;
        let is_input = self.source == Path::new("-");
        let mut draft = if is_input { Draft::bytes("") } else { Draft::file(&self.source) };
        if let Some(name) = self.format {
            draft = draft.data_format(name);
        }
        if let Some(name) = self.media_type {
            draft = draft.media_type(name);
        }
        if let Some(name) = self.type_identifier {
            draft = draft.type_identifier(name);
        }
        for tag in self.tags {
            draft = draft.tag(tag);
        }
        let receipt = if is_input {
            session.put_reader(&key, &mut std::io::stdin().lock(), draft)?
        } else {
            session.put(&key, draft)?
        };
        let bytes = session.record(&key).map_or(0, |record| record.payload().length());
        larder.close()?;
        let stored = &receipt.value;
        context.output.line(
            || {
                let warnings =
                    stored.warnings.iter().fold(String::new(), |text, warning| format!("{text}\n  warning  {warning}"));
                shown(&format!(
                    "  {key}  {}  generation {}, commit {}{warnings}",
                    size(bytes),
                    stored.generation,
                    receipt.commit.sequence
                ))
            },
            || {
                json!({
                    "key": key.as_str(), "bytes": bytes, "generation": stored.generation, "new": stored.is_new(),
                    "commit": receipt.commit.sequence,
                    "warnings": stored.warnings.iter().map(ToString::to_string).collect::<Vec<_>>(),
                })
            },
        )?;
        Ok(0)
    }
}

#[derive(Args)]
pub(crate) struct Remove {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
    /// Remove everything below it too.
    #[arg(short, long)]
    recursive: bool,
}

impl Remove {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (larder, session) = context.change(&self.file)?;
        let count = if self.recursive {
            session.delete_tree(self.key.as_str())?.value
        } else {
            u64::from(session.delete(self.key.as_str())?.value)
        };
        larder.close()?;
        moved(context, "removed", count)
    }
}

/// Says how many assets something happened to; none at all is exit code 1.
fn moved(context: &Context, what: &'static str, count: u64) -> Done {
    context.output.line(|| format!("  {} {what}", number(count)), || json!({ what: count }))?;
    Ok(u8::from(count == 0))
}

#[derive(Args)]
pub(crate) struct Pair {
    /// The store.
    file: PathBuf,
    /// The key that is copied.
    from: String,
    /// The key of the copy.
    to: String,
}

impl Pair {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (larder, session) = context.change(&self.file)?;
        session.copy(self.from.as_str(), self.to.as_str())?;
        larder.close()?;
        moved(context, "copied", 1)
    }
}

#[derive(Args)]
pub(crate) struct Move {
    /// The store.
    file: PathBuf,
    /// The key, or the place.
    from: String,
    /// The new one.
    to: String,
    /// Move everything at and below it.
    #[arg(short, long)]
    recursive: bool,
}

impl Move {
    pub(crate) fn run(self, context: &Context) -> Done {
        let (larder, session) = context.change(&self.file)?;
        let count = if self.recursive {
            session.rename_tree(self.from.as_str(), self.to.as_str())?.value
        } else {
            session.rename(self.from.as_str(), self.to.as_str())?;
            1
        };
        larder.close()?;
        moved(context, "moved", count)
    }
}

#[derive(Args)]
pub(crate) struct Tag {
    /// The store.
    file: PathBuf,
    /// The key.
    key: String,
    /// The tags.
    #[arg(required = true)]
    tags: Vec<String>,
    /// Put them in the place of those that are there.
    #[arg(long, conflicts_with = "keep")]
    replace: bool,
    /// Add them only if there are none.
    #[arg(long)]
    keep: bool,
}

impl Tag {
    pub(crate) fn run(self, context: &Context) -> Done {
        let policy = match (self.replace, self.keep) {
            (true, _) => TagPolicy::Replace,
            (_, true) => TagPolicy::Keep,
            _ => TagPolicy::Union,
        };
        let (larder, session) = context.change(&self.file)?;
        let stored = session.tag(self.key.as_str(), self.tags.iter().map(String::as_str), policy)?.value;
        let record = session.record(self.key.as_str())?;
        larder.close()?;
        let tags: Vec<&str> = record.tags().collect();
        context.output.line(
            || shown(&format!("  {}  {}", self.key, tags.join(", "))),
            || json!({"key": self.key, "tags": tags, "ignored": stored.tags_ignored}),
        )?;
        Ok(u8::from(!stored.tags_ignored.is_empty()))
    }
}
