//! What is to be changed, as a value: an edit with its conditions, and what came of it.

use std::path::PathBuf;

use bytes::Bytes;
use larder_format::{
    AbsentReason, AttributeValue, ContentHash, Key, LogKind, Micros, Node, Prefix, SectionTag, Status,
    Warning,
};

use crate::error::{Error, Result};
use crate::payload::{Prepared, Storable, archive};

/// What can stand for a key: a [`Key`], or a text that is parsed as one.
pub trait IntoKey {
    /// Gives the key.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey) with what is wrong.
    fn into_key(self) -> Result<Key>;
}

impl<T> IntoKey for T
where
    T: TryInto<Key>,
    Error: From<T::Error>,
{
    fn into_key(self) -> Result<Key> {
        Ok(self.try_into()?)
    }
}

/// What can stand for a place in the tree: a [`Prefix`], a [`Key`], or a text, of which `""` is the root.
pub trait IntoPlace {
    /// Gives the place.
    ///
    /// # Errors
    /// [`InvalidKey`](crate::ErrorKind::InvalidKey) with what is wrong.
    fn into_place(self) -> Result<Prefix>;
}

impl<T> IntoPlace for T
where
    T: TryInto<Prefix>,
    Error: From<T::Error>,
{
    fn into_place(self) -> Result<Prefix> {
        Ok(self.try_into()?)
    }
}

/// What is to be stored under a key: a payload, and what is known about it.
///
/// Anything that is bytes makes a draft: `&[u8]`, `&str`, `Vec<u8>`, `String`, [`Bytes`]. What is not said is
/// inferred: the data format from the key's extension, media type and type from the format.
///
/// ```
/// # use larder::{Draft, Status};
/// let draft = Draft::from("leek soup").data_format("txt").tag("menu").attribute("servings", 4i64);
/// ```
#[derive(Debug)]
pub struct Draft {
    pub(crate) payload: DraftPayload,
    pub(crate) data_format: Option<String>,
    pub(crate) media_type: Option<String>,
    pub(crate) type_identifier: Option<String>,
    pub(crate) metadata: Annotation,
}

pub(crate) enum DraftPayload {
    Bytes(Bytes),
    Typed(Result<Bytes>, &'static str),
    File(PathBuf),
    Absent(AbsentReason),
    Prepared(Prepared),
}

/// Tells how long it is, and not what it is.
impl std::fmt::Debug for DraftPayload {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Bytes(bytes) => write!(f, "{} bytes", bytes.len()),
            Self::Typed(Ok(bytes), name) => write!(f, "{} bytes of {name}", bytes.len()),
            Self::Typed(Err(error), name) => write!(f, "{name}: {error}"),
            Self::File(path) => path.fmt(f),
            Self::Absent(reason) => reason.fmt(f),
            Self::Prepared(prepared) => prepared.fmt(f),
        }
    }
}

impl Draft {
    pub(crate) fn new(payload: DraftPayload) -> Self {
        Self {
            payload,
            data_format: None,
            media_type: None,
            type_identifier: None,
            metadata: Annotation::new(),
        }
    }

    /// Makes a draft of bytes.
    pub fn bytes(payload: impl Into<Bytes>) -> Self {
        Self::new(DraftPayload::Bytes(payload.into()))
    }

    /// Makes a draft of a file's content; it is read when the draft is put.
    pub fn file(path: impl Into<PathBuf>) -> Self {
        Self::new(DraftPayload::File(path.into()))
    }

    /// Makes a draft of a value in its archived form, to be read in place.
    pub fn typed<T: Storable>(value: &T) -> Self {
        Self::new(DraftPayload::Typed(archive(value), std::any::type_name::<T>()))
    }

    /// Makes a draft without payload: the record says why there is none.
    #[must_use]
    pub fn absent(reason: AbsentReason) -> Self {
        Self::new(DraftPayload::Absent(reason))
    }

    /// Makes a draft of a payload that was staged before.
    #[must_use]
    pub fn prepared(payload: Prepared) -> Self {
        Self::new(DraftPayload::Prepared(payload))
    }

    /// Says the data format, a name of the registry such as `json` or `csv:semicolon`.
    #[must_use]
    pub fn data_format(mut self, name: impl Into<String>) -> Self {
        self.data_format = Some(name.into());
        self
    }

    /// Says the media type.
    #[must_use]
    pub fn media_type(mut self, name: impl Into<String>) -> Self {
        self.media_type = Some(name.into());
        self
    }

    /// Says the type identifier: what the payload is when it has been read.
    #[must_use]
    pub fn type_identifier(mut self, name: impl Into<String>) -> Self {
        self.type_identifier = Some(name.into());
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(self, tag: impl Into<String>) -> Self {
        self.with(|metadata| metadata.tag(tag))
    }

    /// Adds an attribute.
    #[must_use]
    pub fn attribute(self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.with(|metadata| metadata.attribute(name, value))
    }

    /// Sets the status; without it a draft is `Source`.
    #[must_use]
    pub fn status(self, status: Status) -> Self {
        self.with(|metadata| metadata.status(status))
    }

    /// Sets everything else that an annotation can.
    #[must_use]
    pub fn with(mut self, annotate: impl FnOnce(Annotation) -> Annotation) -> Self {
        self.metadata = annotate(self.metadata);
        self
    }
}

macro_rules! draft_from {
    ($($from:ty => |$value:ident| $bytes:expr),* $(,)?) => {
        $(impl From<$from> for Draft {
            fn from($value: $from) -> Self {
                Self::bytes($bytes)
            }
        })*
    };
}
draft_from! {
    Bytes => |value| value,
    Vec<u8> => |value| value,
    String => |value| value,
    &[u8] => |value| Bytes::copy_from_slice(value),
    &str => |value| Bytes::copy_from_slice(value.as_bytes()),
    &Vec<u8> => |value| Bytes::copy_from_slice(value),
    &String => |value| Bytes::copy_from_slice(value.as_bytes()),
}

impl<const N: usize> From<&[u8; N]> for Draft {
    fn from(value: &[u8; N]) -> Self {
        Self::bytes(Bytes::copy_from_slice(value))
    }
}

/// What happens to tags that are there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub enum TagPolicy {
    /// They stay; new ones are added behind them.
    #[default]
    Union,
    /// They go; the new ones take their place.
    Replace,
    /// They stay, and new ones are ignored, if there are any; what was ignored is reported.
    Keep,
}

/// A change of metadata that leaves the payload as it is.
#[derive(Debug, Default, Clone)]
pub struct Annotation {
    pub(crate) status: Option<Status>,
    pub(crate) tags: Vec<String>,
    pub(crate) tag_policy: TagPolicy,
    pub(crate) tags_removed: Vec<String>,
    pub(crate) attributes: Vec<(String, Option<AttributeValue>)>,
    pub(crate) texts: Vec<(SectionTag, String)>,
    pub(crate) extra: Option<Bytes>,
    pub(crate) log: Vec<(LogKind, String)>,
    pub(crate) expires: Option<Micros>,
    pub(crate) volatile: Option<bool>,
    pub(crate) pinned: Option<bool>,
    pub(crate) has_recipe: Option<bool>,
    /// What it was made from, with the version that was seen; without, the one that is there.
    pub(crate) dependencies: Vec<(Result<Node>, Option<u128>)>,
    pub(crate) stable_because: Option<String>,
    pub(crate) loss_is_known: bool,
}

impl Annotation {
    /// Gives about how many bytes it has.
    pub(crate) fn bytes(&self) -> usize {
        let attribute = |value: &Option<AttributeValue>| match value {
            Some(AttributeValue::Text(text)) => text.len(),
            _ => 16,
        };
        self.tags.iter().map(|tag| 2 * tag.len() + 64).sum::<usize>()
            + self.attributes.iter().map(|(name, value)| name.len() + attribute(value)).sum::<usize>()
            + self.texts.iter().map(|(_, text)| text.len()).sum::<usize>()
            + self.extra.as_ref().map_or(0, Bytes::len)
            + self.log.iter().map(|(_, message)| message.len() + 64).sum::<usize>()
            + self.dependencies.len() * 256
    }

    /// Makes an annotation that changes nothing.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets the status.
    #[must_use]
    pub fn status(mut self, status: Status) -> Self {
        self.status = Some(status);
        self
    }

    /// Adds a tag.
    #[must_use]
    pub fn tag(mut self, tag: impl Into<String>) -> Self {
        self.tags.push(tag.into());
        self
    }

    /// Says what happens to the tags that are there already.
    #[must_use]
    pub fn tag_policy(mut self, policy: TagPolicy) -> Self {
        self.tag_policy = policy;
        self
    }

    /// Takes a tag away.
    #[must_use]
    pub fn untag(mut self, tag: impl Into<String>) -> Self {
        self.tags_removed.push(tag.into());
        self
    }

    /// Sets an attribute.
    #[must_use]
    pub fn attribute(mut self, name: impl Into<String>, value: impl Into<AttributeValue>) -> Self {
        self.attributes.push((name.into(), Some(value.into())));
        self
    }

    /// Removes an attribute.
    #[must_use]
    pub fn remove_attribute(mut self, name: impl Into<String>) -> Self {
        self.attributes.push((name.into(), None));
        self
    }

    /// Sets the title.
    #[must_use]
    pub fn title(self, text: impl Into<String>) -> Self {
        self.text(SectionTag::Title, text)
    }

    /// Sets the description.
    #[must_use]
    pub fn description(self, text: impl Into<String>) -> Self {
        self.text(SectionTag::Description, text)
    }

    /// Sets the name of the type.
    #[must_use]
    pub fn type_name(self, text: impl Into<String>) -> Self {
        self.text(SectionTag::TypeName, text)
    }

    /// Sets a message.
    #[must_use]
    pub fn message(self, text: impl Into<String>) -> Self {
        self.text(SectionTag::Message, text)
    }

    fn text(mut self, tag: SectionTag, text: impl Into<String>) -> Self {
        self.texts.push((tag, text.into()));
        self
    }

    /// Sets the opaque bytes that the application keeps with the record; empty removes them.
    #[must_use]
    pub fn extra(mut self, bytes: impl Into<Bytes>) -> Self {
        self.extra = Some(bytes.into());
        self
    }

    /// Appends an entry to the log.
    #[must_use]
    pub fn log(mut self, kind: LogKind, message: impl Into<String>) -> Self {
        self.log.push((kind, message.into()));
        self
    }

    /// Sets when the asset expires: [`NEVER`](larder_format::NEVER), [`IMMEDIATELY`](larder_format::IMMEDIATELY)
    /// or a time.
    #[must_use]
    pub fn expires(mut self, at: Micros) -> Self {
        self.expires = Some(at);
        self
    }

    /// Says whether the asset must never be served as a hit. Flag, status and expiry change together: what is volatile
    /// expires [immediately](larder_format::IMMEDIATELY), and a loadable status becomes `Volatile`.
    #[must_use]
    pub fn volatile(mut self, volatile: bool) -> Self {
        self.volatile = Some(volatile);
        self
    }

    /// Says that the asset was made from another, as that is now. Naming one replaces all that were named before.
    #[must_use]
    pub fn depends_on(self, key: impl IntoKey) -> Self {
        self.on(key.into_key().map(Node::Asset), None)
    }

    /// Says that the asset was made from a version of another, by [`Record::version`](larder_format::Record::version).
    #[must_use]
    pub fn depends_on_version(self, key: impl IntoKey, version: u128) -> Self {
        self.on(key.into_key().map(Node::Asset), Some(version))
    }

    /// Says that the asset was made from a version of something outside the store, such as a command.
    #[must_use]
    pub fn depends_on_external(self, name: impl Into<String>, version: u128) -> Self {
        self.on(Ok(Node::External(name.into())), Some(version))
    }

    fn on(mut self, node: Result<Node>, version: Option<u128>) -> Self {
        self.dependencies.push((node, version));
        self
    }

    /// Says why the asset is not volatile although it was made from something that is; the reason goes into its log.
    #[must_use]
    pub fn stable_because(mut self, reason: impl Into<String>) -> Self {
        self.stable_because = Some(reason.into());
        self
    }

    /// Says that it is known that the value lives in memory only and is lost with the process: without, that is refused
    /// where formats are checked strictly.
    #[must_use]
    pub fn loss_is_known(mut self) -> Self {
        self.loss_is_known = true;
        self
    }

    /// Says whether there is a recipe that makes the asset. What is then put without a status is an `Override`, and what
    /// is deleted goes back to being a `Recipe`.
    #[must_use]
    pub fn has_recipe(mut self, has_recipe: bool) -> Self {
        self.has_recipe = Some(has_recipe);
        self
    }

    /// Says whether no policy may remove the asset.
    #[must_use]
    pub fn pinned(mut self, pinned: bool) -> Self {
        self.pinned = Some(pinned);
        self
    }
}

/// What must hold for an edit to take place. Compared in the transaction that makes the change.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Condition {
    /// Nothing is stored under the key.
    Absent,
    /// Something is stored under the key.
    Exists,
    /// The asset has this generation.
    Generation(u64),
    /// The payload has this digest.
    Content(ContentHash),
    /// The asset has one of these statuses.
    Status(Vec<Status>),
}

impl std::fmt::Display for Condition {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Absent => f.write_str("nothing"),
            Self::Exists => f.write_str("an asset"),
            Self::Generation(generation) => write!(f, "generation {generation}"),
            Self::Content(hash) => write!(f, "content {hash}"),
            Self::Status(statuses) => {
                let names: Vec<_> = statuses.iter().map(Status::name).collect();
                write!(f, "status {}", names.join(" or "))
            }
        }
    }
}

/// Why an edit did not take place: a condition did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// The condition.
    pub expected: Condition,
    /// What is there. `None` if nothing is, or if the caller may not read it.
    pub actual: Option<Actual>,
}

/// What was found where a condition did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Actual {
    /// The generation of the asset.
    pub generation: u64,
    /// The digest of its payload, if it has one.
    pub content: Option<ContentHash>,
    /// Its status.
    pub status: Status,
}

/// What came of an edit that stored something.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stored {
    /// The generation that the asset has now.
    pub generation: u64,
    /// The generation that it had before, if it was there.
    pub previous: Option<u64>,
    /// What does not fit and was let through.
    pub warnings: Vec<Warning>,
    /// The tags that were ignored, as [`TagPolicy::Keep`] asks for.
    pub tags_ignored: Vec<String>,
}

impl Stored {
    /// Tells whether the asset was not there before.
    #[must_use]
    pub fn is_new(&self) -> bool {
        self.previous.is_none()
    }
}

/// What came of an edit.
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use]
#[non_exhaustive]
pub enum Outcome {
    /// An asset is there that was not.
    Created(Stored),
    /// An asset was replaced or changed.
    Replaced(Stored),
    /// Assets are gone, or went to other keys.
    Removed {
        /// How many.
        count: u64,
    },
    /// Nothing was there to be changed.
    NotFound,
    /// A condition did not hold; nothing was changed.
    Refused(Refusal),
}

impl Outcome {
    /// Tells whether the edit took place.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Created(_) | Self::Replaced(_) | Self::Removed { .. })
    }

    /// Tells how many assets are gone, or went to other keys.
    #[must_use]
    pub fn removed(&self) -> u64 {
        match self {
            Self::Removed { count } => *count,
            _ => 0,
        }
    }
}

/// What an edit does.
#[derive(Debug)]
pub(crate) enum Change {
    Put { key: Key, draft: Draft },
    Annotate { key: Key, annotation: Annotation },
    Delete { key: Key },
    DeleteTree { prefix: Prefix },
    Rename { from: Key, to: Key },
    RenameTree { from: Prefix, to: Prefix },
    Copy { from: Key, to: Key },
    MakeDirectory { key: Key },
    RemoveDirectory { key: Key },
}

impl Change {
    /// Gives the key that the change is about, if it is about one.
    pub(crate) fn key(&self) -> Option<&Key> {
        match self {
            Self::Put { key, .. }
            | Self::Annotate { key, .. }
            | Self::Delete { key }
            | Self::MakeDirectory { key }
            | Self::RemoveDirectory { key } => Some(key),
            Self::Rename { to, .. } | Self::Copy { to, .. } => Some(to),
            Self::DeleteTree { prefix } | Self::RenameTree { to: prefix, .. } => prefix.as_key(),
        }
    }
}

/// One change with its conditions, to be applied by a session, a transaction or a batch.
///
/// A malformed key is reported where the edit is applied, so that a batch can report all of them.
#[derive(Debug)]
#[must_use]
pub struct Edit {
    pub(crate) change: Result<Change>,
    pub(crate) conditions: Vec<Condition>,
}

impl Edit {
    fn new(change: Result<Change>) -> Self {
        Self { change, conditions: Vec::new() }
    }

    /// Stores a draft under a key, in place of what is there.
    pub fn put(at: impl IntoKey, draft: impl Into<Draft>) -> Self {
        Self::new(at.into_key().map(|key| Change::Put { key, draft: draft.into() }))
    }

    /// Changes the metadata of an asset; its payload stays.
    pub fn annotate(at: impl IntoKey, annotation: Annotation) -> Self {
        Self::new(at.into_key().map(|key| Change::Annotate { key, annotation }))
    }

    /// Adds tags to an asset, or replaces them, as the policy says.
    pub fn tag<'t>(at: impl IntoKey, tags: impl IntoIterator<Item = &'t str>, policy: TagPolicy) -> Self {
        Self::annotate(at, tags.into_iter().fold(Annotation::new().tag_policy(policy), Annotation::tag))
    }

    /// Removes an asset.
    pub fn delete(at: impl IntoKey) -> Self {
        Self::new(at.into_key().map(|key| Change::Delete { key }))
    }

    /// Removes everything at and below a place.
    pub fn delete_tree(at: impl IntoPlace) -> Self {
        Self::new(at.into_place().map(|prefix| Change::DeleteTree { prefix }))
    }

    /// Gives an asset another key. Conditions are about the asset that is moved.
    pub fn rename(from: impl IntoKey, to: impl IntoKey) -> Self {
        Self::new(from.into_key().and_then(|from| Ok(Change::Rename { from, to: to.into_key()? })))
    }

    /// Moves everything at and below a place to another place.
    pub fn rename_tree(from: impl IntoPlace, to: impl IntoPlace) -> Self {
        Self::new(from.into_place().and_then(|from| Ok(Change::RenameTree { from, to: to.into_place()? })))
    }

    /// Stores a copy of an asset under another key. Conditions are about what is there under that key.
    pub fn copy(from: impl IntoKey, to: impl IntoKey) -> Self {
        Self::new(from.into_key().and_then(|from| Ok(Change::Copy { from, to: to.into_key()? })))
    }

    /// Makes a directory that is there even while it is empty.
    pub fn make_directory(at: impl IntoKey) -> Self {
        Self::new(at.into_key().map(|key| Change::MakeDirectory { key }))
    }

    /// Removes a directory that is empty.
    pub fn remove_directory(at: impl IntoKey) -> Self {
        Self::new(at.into_key().map(|key| Change::RemoveDirectory { key }))
    }

    /// Adds a condition.
    pub fn given(mut self, condition: Condition) -> Self {
        self.conditions.push(condition);
        self
    }

    /// Only if nothing is stored under the key.
    pub fn if_absent(self) -> Self {
        self.given(Condition::Absent)
    }

    /// Only if something is stored under the key.
    pub fn if_exists(self) -> Self {
        self.given(Condition::Exists)
    }

    /// Only if the asset has this generation.
    pub fn if_generation(self, generation: u64) -> Self {
        self.given(Condition::Generation(generation))
    }

    /// Only if the payload has this digest.
    pub fn if_content(self, hash: ContentHash) -> Self {
        self.given(Condition::Content(hash))
    }

    /// Only if the asset has one of these statuses.
    pub fn if_status(self, statuses: impl IntoIterator<Item = Status>) -> Self {
        self.given(Condition::Status(statuses.into_iter().collect()))
    }
}

/// Whether the edits of a batch stand or fall together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BatchMode {
    /// All, or none: one refused edit refuses all, and every error is reported.
    Atomic,
    /// Each for itself: those that can be done are, in one commit.
    PerItem,
}
