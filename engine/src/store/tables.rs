//! The tables of a larder file: their numbers in write-sets and checksums, and their names in redb.

/// A table. The numbers are part of the format: they stand in write-sets and seed the checksums.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub(crate) enum Table {
    /// What the file is: format version, features, store id. Written at creation and upgrade only.
    Meta = 1,
    /// The applied position, statistics, high-water marks.
    State = 2,
    /// Encoded key: record, and behind it a small payload.
    Records = 3,
    /// Payload id and chunk number: a piece of a payload.
    Chunks = 4,
    /// Content hash: payload id, references, layout.
    Contents = 5,
    /// Tag, 0, encoded key: nothing.
    Tags = 6,
    /// Commit sequence: what the commit did.
    Feed = 7,
    /// Audit sequence: who asked for what, and what the answer was.
    Audit = 8,
    /// Principal, 0, idempotency key: the receipt.
    Once = 9,
    /// Name, 0, version: a document (rules, limits, registry).
    Documents = 10,
    /// Payload id: an upload that is not finished.
    Staging = 11,
    /// Who may write under a key until when; who was revoked; who is in a group.
    Claims = 12,
    /// Time, purpose, encoded key: nothing.
    Deadlines = 13,
    /// What something depends on, and what depends on it.
    Edges = 14,
    /// Encoded key, 0, generation: what the asset was.
    History = 15,
    /// Encoded key, 0, number: what was said of the work on an asset.
    Logs = 16,
    /// Collection number, key of a row: the row.
    Rows = 17,
    /// Collection number, number of an index or aggregate, values: what follows from the rows.
    Entries = 18,
}

impl Table {
    pub(crate) const ALL: [Self; 18] = [
        Self::Meta,
        Self::State,
        Self::Records,
        Self::Chunks,
        Self::Contents,
        Self::Tags,
        Self::Feed,
        Self::Audit,
        Self::Once,
        Self::Documents,
        Self::Staging,
        Self::Claims,
        Self::Deadlines,
        Self::Edges,
        Self::History,
        Self::Logs,
        Self::Rows,
        Self::Entries,
    ];

    pub(crate) const fn number(self) -> u8 {
        self as u8
    }

    pub(crate) fn from_number(number: u8) -> Option<Self> {
        Self::ALL.into_iter().find(|table| table.number() == number)
    }

    /// The table of redb that the rows lie in, and the byte in front of their keys there, if they share it.
    ///
    /// Every commit changes `state` and `feed`; together in one tree they cost one update of its root instead of two.
    pub(super) const fn tree(self) -> (Tree, Option<u8>) {
        match self {
            Self::State => (Tree::Journal, Some(1)),
            // The greater byte: its rows come in order, and fill their pages at the end of the tree.
            Self::Feed => (Tree::Journal, Some(2)),
            Self::Claims => (Tree::Index, Some(1)),
            Self::Deadlines => (Tree::Index, Some(2)),
            Self::Edges => (Tree::Index, Some(3)),
            Self::History => (Tree::Index, Some(4)),
            Self::Logs => (Tree::Index, Some(5)),
            Self::Entries => (Tree::Index, Some(6)),
            other => (Tree::Own(other), None),
        }
    }

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Meta => "meta",
            Self::State => "state",
            Self::Records => "records",
            Self::Chunks => "chunks",
            Self::Contents => "contents",
            Self::Tags => "tags",
            Self::Feed => "feed",
            Self::Audit => "audit",
            Self::Once => "once",
            Self::Documents => "documents",
            Self::Staging => "staging",
            Self::Claims => "claims",
            Self::Deadlines => "deadlines",
            Self::Edges => "edges",
            Self::History => "history",
            Self::Logs => "logs",
            Self::Rows => "rows",
            Self::Entries => "entries",
        }
    }
}

/// A table of redb.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Tree {
    /// That of one table.
    Own(Table),
    /// That of `state` and `feed`.
    Journal,
    /// That of what is kept about assets, in the order of something else than their keys.
    Index,
}

impl Tree {
    pub(super) fn all() -> impl Iterator<Item = Self> {
        Table::ALL
            .into_iter()
            .map(|table| table.tree().0)
            .filter(|tree| matches!(tree, Self::Own(_)))
            .chain([Self::Journal, Self::Index])
    }

    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Own(table) => table.name(),
            Self::Journal => "journal",
            Self::Index => "index",
        }
    }

    /// Where the tree stands among those of a view.
    pub(super) const fn place(self) -> usize {
        match self {
            Self::Own(table) => table.number() as usize,
            Self::Journal => 0,
            // The first of its tables has no tree of its own.
            Self::Index => Table::Claims.number() as usize,
        }
    }
}

/// The key under which a row lies in its tree.
pub(super) fn tree_key(table: Table, key: &[u8]) -> std::borrow::Cow<'_, [u8]> {
    match table.tree().1 {
        None => key.into(),
        Some(front) => [&[front], key].concat().into(),
    }
}

/// The key of a row of `State`.
pub(crate) mod state_key {
    /// The applied position.
    pub(crate) const HEAD: &[u8] = b"head";
    /// The next audit sequence number, u64.
    pub(crate) const AUDIT_NEXT: &[u8] = b"audit-next";
    /// Up to which fence numbers may have been given out, u64.
    pub(crate) const FENCES: &[u8] = b"fences";
    /// How much of what there is.
    pub(crate) const STATISTICS: &[u8] = b"statistics";
}

/// The key of a row of `Meta`.
pub(crate) mod meta_key {
    /// The format version, u32.
    pub(crate) const FORMAT: &[u8] = b"format";
    /// Features that a reader must know, u64.
    pub(crate) const FEATURES_REQUIRED: &[u8] = b"features-required";
    /// The store id, 16 bytes.
    pub(crate) const STORE_ID: &[u8] = b"store-id";
    /// When the file was created, microseconds, i64.
    pub(crate) const CREATED: &[u8] = b"created";
    /// The id of the commit log, 16 bytes, while one is in use.
    pub(crate) const LOG: &[u8] = b"log";
}
