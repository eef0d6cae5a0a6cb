//! The one public error: what went wrong, with the operands, and what to do about it.

use std::fmt;
use std::sync::Arc;

use larder_format::{AbsentReason, Key};

/// The result of an operation of larder.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of larder. Small, cheap to clone; [`Error::kind`] has the operands.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    key: Option<Key>,
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
    items: Vec<(usize, Error)>,
    /// The denial behind an error that must not tell of it; for the audit alone.
    denial: Option<ErrorKind>,
}

/// What the caller does next.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Action {
    /// Correct what was passed in.
    CorrectTheArgument,
    /// Ask somebody who may for the right, or act as somebody else.
    AskForAccess,
    /// Do the same again; it may succeed.
    Retry,
    /// Ask by the idempotency key what became of the commit.
    AskForTheOutcome,
    /// Close the handle and open the file again.
    Reopen,
    /// Make room on the disk or in the file.
    FreeSpace,
    /// Verify the file, and repair or restore it.
    Repair,
    /// Use another version of larder.
    Upgrade,
}

macro_rules! error_kinds {
    ($( $(#[doc = $doc:literal])+ $code:literal $action:ident $name:ident $({ $( $(#[doc = $field_doc:literal])+ $field:ident : $type:ty ),* $(,)? })? => $text:literal $(, $argument:expr)* ; )*) => {
        /// What went wrong. Numbers and names are operands; the text of [`Error`] contains all of them.
        #[derive(Debug, Clone, PartialEq)]
        #[non_exhaustive]
        pub enum ErrorKind {
            $( $(#[doc = $doc])+ $name $({ $( $(#[doc = $field_doc])+ $field: $type ),* })?, )*
        }

        impl ErrorKind {
            /// Gives the stable number of the kind, for programs and exit codes.
            #[must_use]
            pub fn code(&self) -> u16 {
                match self { $( Self::$name { .. } => $code, )* }
            }

            /// Gives the name of the kind.
            #[must_use]
            pub fn name(&self) -> &'static str {
                match self { $( Self::$name { .. } => stringify!($name), )* }
            }

            /// Tells what the caller does next.
            #[must_use]
            pub fn action(&self) -> Action {
                match self { $( Self::$name { .. } => Action::$action, )* }
            }
        }

        impl fmt::Display for ErrorKind {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self { $( Self::$name $({ $($field),* })? => write!(f, $text $(, $argument)*), )* }
            }
        }
    };
}

error_kinds! {
    /// A key does not have the form of a path.
    101 CorrectTheArgument InvalidKey {
        /// What is wrong with it.
        what: String
    } => "not a key: {what}";
    /// A name (of a principal, a group, an idempotency key) is malformed.
    102 CorrectTheArgument InvalidName {
        /// What was to be named.
        field: &'static str,
        /// What is wrong with the name.
        what: String
    } => "not a {field}: {what}";
    /// A tag is empty, too long, or has control characters.
    103 CorrectTheArgument InvalidTag {
        /// The tag.
        tag: String,
        /// What is wrong with it.
        what: String
    } => "{tag:?} is not a tag: {what}";
    /// A document (rules, limits, registry) cannot be used.
    104 CorrectTheArgument InvalidDocument {
        /// Which document.
        document: String,
        /// What is wrong with it, and where.
        what: String
    } => "the {document} cannot be used: {what}; nothing was changed";
    /// An argument is outside its range.
    105 CorrectTheArgument InvalidArgument {
        /// The argument.
        argument: &'static str,
        /// What was expected.
        expected: String,
        /// What was got.
        got: String
    } => "{argument}: expected {expected}, got {got}";

    /// Nothing is stored under the key, or nothing that the caller may know of.
    201 CorrectTheArgument NotFound => "nothing is stored here";
    /// The asset has no payload.
    202 CorrectTheArgument PayloadUnavailable {
        /// Why it has none.
        reason: AbsentReason
    } => "the record is there, its payload is not: {reason}";
    /// Something is stored under the key already.
    203 CorrectTheArgument AlreadyExists => "something is stored here already; delete it first, or put over it";
    /// A directory that was to be removed is not empty.
    204 CorrectTheArgument NotEmpty {
        /// How many assets lie below, at least.
        below: u64
    } => "the directory is not empty ({below} or more below it); remove it with everything below it, or nothing";
    /// The key is that of a directory, and the operation needs an asset.
    205 CorrectTheArgument IsADirectory => "this is a directory, not an asset";

    /// The key is that of a collection, and the operation needs an asset.
    211 CorrectTheArgument IsACollection => "this is a collection of rows, not an asset";
    /// The key is that of an asset or a directory, and the operation needs a collection.
    212 CorrectTheArgument NotACollection => "this is not a collection; define one under another key";
    /// A row would have had the same values in a unique index as another one.
    213 CorrectTheArgument NotUnique {
        /// The index.
        index: String,
        /// The key of the row that has the values.
        row: String
    } => "the row {row} has the same values in the unique index {index}; nothing was changed";
    /// A counter would have left its range.
    214 CorrectTheArgument CounterOutOfRange {
        /// The row and the field.
        counter: String,
        /// What it says.
        value: i64,
        /// What was to be added.
        delta: i64,
        /// The least that it may say.
        min: i64,
        /// The most that it may say.
        max: i64
    } => "the counter {counter} says {value}: adding {delta} would leave {min}..={max}; nothing was added";

    /// Nothing makes this asset again, so that it does not expire by rule.
    206 CorrectTheArgument NotExpirable {
        /// Its status.
        status: String
    } => "an asset of status {status} does not expire: nothing makes it again; delete it instead";
    /// An asset would have been made from itself, or an edge have led round in a circle.
    207 CorrectTheArgument DependencyCycle {
        /// The keys or nodes, from this one on to itself.
        path: String
    } => "it would depend on itself: {path}; nothing was changed";
    /// What an asset was made from has changed meanwhile.
    208 Retry DependencyChanged {
        /// What it was made from.
        on: String,
        /// The version that was seen.
        seen: String,
        /// The version that there is.
        found: String
    } => "{on} has changed: version {seen} was seen, {found} is there; make it again. Nothing was changed";
    /// More assets depend on this one than may expire in one transaction, or a graph is too large to be searched.
    209 CorrectTheArgument CascadeTooLarge {
        /// How many may.
        limit: u64
    } => "more than {limit} would be touched by way of what depends on it; go in parts. Nothing was changed";
    /// The value would be lost with the process, and nothing makes it again.
    210 CorrectTheArgument WouldLoseData => "the value would be lost with the process, and no recipe makes it again; say that this is known (Annotation::loss_is_known), or store a payload";
    /// The rules do not allow the caller to do this.
    301 AskForAccess AccessDenied {
        /// Who asked.
        principal: String,
        /// What for.
        right: String,
        /// What decided.
        by: String
    } => "denied: {principal} may not {right} here (by {by})";

    /// The payload is larger than the limit.
    401 CorrectTheArgument BinaryTooLarge {
        /// Its size in bytes; of a stream, how much had come when the limit was passed.
        size: u64,
        /// The limit in bytes.
        limit: u64,
        /// Which limit it is.
        by: String
    } => "{} than the limit of {} ({by}); nothing was stored", Larger(*size, *limit), larder_format::ByteSize(*limit);
    /// The metadata are larger than the limit.
    402 CorrectTheArgument MetadataTooLarge {
        /// The size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64
    } => "the metadata have {size} bytes, more than the limit of {limit}; nothing was stored";
    /// There are more tags than the limit.
    403 CorrectTheArgument TooManyTags {
        /// How many there would be.
        count: u64,
        /// The limit.
        limit: u64
    } => "the asset would have {count} tags, more than the limit of {limit}; nothing was changed";
    /// The transaction is larger than a write-set may be.
    404 CorrectTheArgument TransactionTooLarge {
        /// Its size in bytes.
        size: u64,
        /// The limit in bytes.
        limit: u64
    } => "the transaction has {size} bytes, more than the limit of {limit}; split it. Nothing was changed";
    /// All payloads together would be larger than the limit.
    406 FreeSpace QuotaExceeded {
        /// How many bytes there are.
        used: u64,
        /// How many bytes the payload has.
        size: u64,
        /// The limit, in bytes.
        limit: u64,
        /// How many of those that there are no policy may remove.
        protected: u64
    } => "{} of {} are used ({} of them pinned, or made by nothing), and this is {} more; remove something first. Nothing was stored", larder_format::ByteSize(*used), larder_format::ByteSize(*limit), larder_format::ByteSize(*protected), larder_format::ByteSize(*size);
    /// A batch has more edits, or more bytes, than the limit.
    405 CorrectTheArgument BatchTooLarge {
        /// What there is too much of.
        what: &'static str,
        /// How much there is.
        size: u64,
        /// The limit.
        limit: u64
    } => "the batch has {size} {what}, more than the limit of {limit}; split it. Nothing was changed";

    /// A mandatory field is empty.
    501 CorrectTheArgument MissingField {
        /// The field.
        field: String
    } => "{field} is empty, and must not be; leave it out to have it inferred";
    /// Fields contradict each other.
    502 CorrectTheArgument Inconsistent {
        /// The field that contradicts.
        field: String,
        /// What was expected there.
        expected: String,
        /// What was got.
        got: String
    } => "{field} is {got:?}, expected {expected}; nothing was stored";
    /// The registry does not know the data format.
    503 CorrectTheArgument UnknownFormat {
        /// The data format.
        data_format: String
    } => "the registry does not know the data format {data_format:?}; add it to the registry, or store less strictly";
    /// A validator refused the record or its payload.
    504 CorrectTheArgument Validation {
        /// The field that was refused.
        field: String,
        /// Why.
        what: String
    } => "refused by a validator: {field}: {what}; nothing was stored";
    /// A typed payload cannot be read as the type asked for.
    505 CorrectTheArgument TypeMismatch {
        /// What differs.
        what: String
    } => "the payload cannot be read as this type: {what}";
    /// A value could not be turned into a payload, or back.
    506 CorrectTheArgument Serialization {
        /// The format.
        format: String,
        /// The type of the value.
        type_name: String,
        /// What went wrong.
        what: String
    } => "{type_name} cannot be stored as {format}: {what}; nothing was stored";
    /// A precondition did not hold, where that aborts.
    508 CorrectTheArgument PreconditionFailed {
        /// What was expected.
        expected: String,
        /// What was found.
        actual: String
    } => "expected {expected}, found {actual}; nothing was changed";
    /// A batch was refused; [`Error::items`] has the errors of its edits.
    507 CorrectTheArgument BatchRefused {
        /// How many edits were refused.
        refused: u64,
        /// How many there were.
        count: u64,
        /// The errors, one line each.
        errors: String
    } => "{refused} of {count} edits were refused, nothing was changed:{errors}";

    /// Another writer was at work for longer than the wait limit.
    601 Retry Busy {
        /// For how long the writer had been at work, in milliseconds.
        held_ms: u64,
        /// Who it was.
        by: String
    } => "another transaction, of {by}, has been at work for {held_ms} ms; try again, or wait longer";
    /// A transaction was begun inside another one of the same thread.
    602 CorrectTheArgument Nested => "a transaction is at work on this thread already; use it instead of beginning another";
    /// A read transaction was kept for longer than its limit.
    603 Retry ReaderExpired {
        /// How long it was kept, in milliseconds.
        age_ms: u64,
        /// The limit in milliseconds.
        age_ms_max: u64
    } => "the read transaction is {age_ms} ms old, more than the limit of {age_ms_max} ms; begin a new one";
    /// The transaction was given up by its closure.
    604 CorrectTheArgument Aborted {
        /// Why.
        what: String
    } => "the transaction was given up: {what}; nothing was changed";
    /// Somebody else has claimed the key.
    606 Retry Claimed {
        /// Who.
        by: String,
        /// For how long still, in milliseconds.
        for_ms: u64
    } => "claimed by {by} for another {for_ms} ms; wait, or ask again";
    /// As many claims of a group hold as may.
    607 Retry GroupFull {
        /// The group.
        group: String,
        /// How many may hold at the same time.
        limit: u64
    } => "{limit} claims of the group {group:?} hold already; wait, or ask again";
    /// The handle was closed.
    605 Reopen Closed => "the store was closed; open it again";

    /// The file is open elsewhere.
    701 Retry Locked {
        /// The process that has it open, where that can be told.
        pid: Option<u32>
    } => "the file is open in {}; close it there first", pid.map_or("another handle or process".to_owned(), |pid| format!("process {pid}"));
    /// The file is not one of larder's.
    702 CorrectTheArgument NotALarderFile {
        /// What was found.
        found: String
    } => "not a larder file: {found}; it was not changed";
    /// The file was written by a later version of larder.
    703 Upgrade UnsupportedVersion {
        /// The version of the file.
        found: u32,
        /// The latest version that is read here.
        max: u32
    } => "the file has format {found}, this version of larder reads up to {max}; use a later version";
    /// The file needs features that this version does not have.
    704 Upgrade UnsupportedFeatures {
        /// The unknown required feature bits.
        bits: u64
    } => "the file needs features that this version of larder does not have (bits {bits:#x}); use a later version";
    /// The file is of an older format, and was not to be upgraded.
    705 Upgrade UpgradeRequired {
        /// The version of the file.
        found: u32,
        /// The version that it would be upgraded to.
        to: u32
    } => "the file has format {found}; run: larder upgrade FILE, which backs it up and brings it to format {to}";
    /// There is no such file.
    706 CorrectTheArgument NoSuchFile => "there is no such file";
    /// The file or the handle is read-only.
    707 CorrectTheArgument ReadOnly => "opened read-only; nothing can be changed through this handle";
    /// The operating system does not allow the access.
    708 AskForAccess PermissionDenied => "the operating system does not allow this access to the file";

    /// What was read is not what was written.
    801 Repair Corrupt {
        /// Where, and what was found.
        what: String
    } => "the file is damaged: {what}; run: larder verify FILE";
    /// The commit log that was in use is not there.
    806 Repair LogMissing {
        /// Where it should be.
        path: String
    } => "commits may lie in the commit log, and {path} is not there; put it back, or give up what is in it only: larder recover --discard-log FILE";
    /// The commit log is not that of this file, or of another state of it.
    807 Repair LogDiverged {
        /// What does not agree.
        what: String
    } => "the commit log does not belong to this state of the file: {what}; put the right log back, or set this one aside: larder recover --discard-log FILE";
    /// Commits that were on disk cannot be read from the commit log any more.
    808 Repair LogDamaged {
        /// The last commit that can be read.
        readable: u64,
        /// The last commit that is known to have been on disk.
        synced: u64
    } => "the commit log is damaged: it was on disk up to commit {synced}, and can be read up to commit {readable}; keep what can be read: larder recover --discard-log FILE";
    /// The operating system reported an error.
    802 Reopen Io {
        /// What larder was doing.
        doing: String
    } => "{doing} failed";
    /// There is no room.
    803 FreeSpace StoreFull {
        /// What was to be written.
        doing: String,
        /// How many bytes the file has; 0 where that was not asked.
        used: u64,
        /// How many bytes it may have, or could have on its disk; 0 where that is not known.
        limit: u64,
        /// How many of its bytes readers keep from being used again, at most.
        pinned: u64,
        /// How many bytes are kept for deleting.
        reserve: u64
    } => "no room for {doing}{}; delete something, or make room on the disk", Room(*used, *limit, *pinned, *reserve);
    /// The file had to be opened again for want of room, and what was begun before is lost.
    608 Retry Interrupted => "the file had to be opened again for want of room; begin again";
    /// It is not known whether the commit became durable.
    804 AskForTheOutcome OutcomeUnknown {
        /// The commit in question.
        commit: u64
    } => "commit {commit} may or may not be on disk; open the file again and ask by the idempotency key";
    /// An earlier sync or write failed; the handle accepts no more changes.
    805 Reopen Poisoned {
        /// What failed.
        by: String
    } => "an earlier write failed ({by}); nothing is accepted any more by this handle, open the file again";

    /// A snapshot is not what was written.
    809 Repair SnapshotDamaged {
        /// Where, and what was found.
        what: String
    } => "the snapshot is damaged: {what}; nothing was taken from it";
    /// Snapshots do not follow one another, or are not of this store.
    810 CorrectTheArgument SnapshotMismatch {
        /// What does not agree.
        what: String
    } => "the snapshots do not fit: {what}; nothing was changed";

    /// The source of a payload failed half-way.
    901 CorrectTheArgument Source {
        /// How many bytes had come.
        after: u64
    } => "the source of the payload failed after {after} bytes; nothing was stored";
    /// The feed no longer has the rows that were asked for.
    902 CorrectTheArgument Lagged {
        /// The first commit that was asked for.
        wanted: u64,
        /// The first commit that the feed still has.
        first: u64
    } => "the feed begins at commit {first}, {wanted} was asked for; read the state anew and go on from there";
}

/// Shows a size that is beyond a limit, to the byte where it would look the same.
struct Larger(u64, u64);

impl fmt::Display for Larger {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (size, limit) = (larder_format::ByteSize(self.0), larder_format::ByteSize(self.1));
        if size.to_string() == limit.to_string() {
            write!(f, "{} bytes, {} more", self.0, self.0.saturating_sub(self.1))
        } else {
            write!(f, "{size} is larger")
        }
    }
}

impl ErrorKind {
    /// There is no room, and nobody asked how much there is.
    pub(crate) fn no_room(doing: impl Into<String>) -> Self {
        Self::StoreFull { doing: doing.into(), used: 0, limit: 0, pinned: 0, reserve: 0 }
    }
}

/// Shows how much room there is, where that is known.
struct Room(u64, u64, u64, u64);

impl fmt::Display for Room {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(used, limit, pinned, reserve) = self;
        if *used == 0 {
            return Ok(());
        }
        let size = larder_format::ByteSize;
        write!(f, " ({} are used", size(*used))?;
        if *limit > 0 {
            write!(f, " of {}", size(*limit))?;
        }
        write!(f, ", {} are kept for deleting, readers pin {} at most)", size(*reserve), size(*pinned))
    }
}

impl Error {
    /// Makes an error of this kind.
    #[must_use]
    pub fn new(kind: ErrorKind) -> Self {
        Self(Arc::new(Inner { kind, key: None, source: None, items: Vec::new(), denial: None }))
    }

    /// Gives up a transaction from inside its closure, for a reason of the application's own.
    #[must_use]
    pub fn abort(why: impl fmt::Display) -> Self {
        Self::new(ErrorKind::Aborted { what: why.to_string() })
    }

    /// Names the key that the error is about, if none is named yet.
    #[must_use]
    pub fn at(self, key: &Key) -> Self {
        if self.0.key.is_some() {
            return self;
        }
        self.rebuilt(|inner| inner.key = Some(key.clone()))
    }

    /// Adds the error that caused this one.
    #[must_use]
    pub fn caused_by(self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.rebuilt(|inner| inner.source = Some(Arc::new(source)))
    }

    /// Gathers the errors of a batch's edits, each with the place of its edit, from 0.
    pub(crate) fn of_batch(items: Vec<(usize, Self)>, count: usize) -> Self {
        let errors = items.iter().fold(String::new(), |text, (at, error)| format!("{text}\n  {at}: {error}"));
        let kind = ErrorKind::BatchRefused { refused: items.len() as u64, count: count as u64, errors };
        Self::new(kind).rebuilt(|inner| inner.items = items)
    }

    /// Remembers the denial that is not told to the caller.
    pub(crate) fn in_place_of(self, denied: &Self) -> Self {
        let denial = denied.0.kind.clone();
        self.rebuilt(|inner| inner.denial = Some(denial))
    }

    /// Gives the denial that this error is, or stands in place of.
    pub(crate) fn denial(&self) -> Option<&ErrorKind> {
        self.0
            .denial
            .as_ref()
            .or(Some(&self.0.kind))
            .filter(|kind| matches!(kind, ErrorKind::AccessDenied { .. }))
    }

    fn rebuilt(self, change: impl FnOnce(&mut Inner)) -> Self {
        let mut inner = Inner {
            kind: self.0.kind.clone(),
            key: self.0.key.clone(),
            source: self.0.source.clone(),
            items: self.0.items.clone(),
            denial: self.0.denial.clone(),
        };
        change(&mut inner);
        Self(Arc::new(inner))
    }

    /// Gives the errors of a refused batch: the place of each refused edit, from 0, and why.
    #[must_use]
    pub fn items(&self) -> &[(usize, Error)] {
        &self.0.items
    }

    /// Gives what went wrong, with the operands.
    #[must_use]
    pub fn kind(&self) -> &ErrorKind {
        &self.0.kind
    }

    /// Gives the key that it happened to, if it is about one.
    #[must_use]
    pub fn key(&self) -> Option<&Key> {
        self.0.key.as_ref()
    }

    /// Gives the stable number of the kind.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.0.kind.code()
    }

    /// Tells what the caller does next.
    #[must_use]
    pub fn action(&self) -> Action {
        self.0.kind.action()
    }

    /// Tells whether the same call may succeed when it is made again.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.action() == Action::Retry
    }
}

impl From<ErrorKind> for Error {
    fn from(kind: ErrorKind) -> Self {
        Self::new(kind)
    }
}

impl From<std::convert::Infallible> for Error {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

impl From<larder_format::KeyError> for Error {
    fn from(error: larder_format::KeyError) -> Self {
        Self::new(ErrorKind::InvalidKey { what: error.to_string() })
    }
}

impl From<larder_format::RecordError> for Error {
    fn from(error: larder_format::RecordError) -> Self {
        Self::new(ErrorKind::Corrupt { what: error.to_string() })
    }
}

impl From<larder_format::WriteSetError> for Error {
    fn from(error: larder_format::WriteSetError) -> Self {
        match error {
            larder_format::WriteSetError::TooLarge { length, max } => {
                Self::new(ErrorKind::TransactionTooLarge { size: length as u64, limit: max as u64 })
            }
            other => Self::new(ErrorKind::Corrupt { what: other.to_string() }),
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(key) = &self.0.key {
            write!(f, "{key}: ")?;
        }
        write!(f, "{}", self.0.kind)?;
        if let Some(source) = &self.0.source {
            write!(f, ": {source}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("key", &self.0.key)
            .field("source", &self.0.source)
            .finish()
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.0.source.as_ref().map(|source| -> &(dyn std::error::Error + 'static) { source.as_ref() })
    }
}
