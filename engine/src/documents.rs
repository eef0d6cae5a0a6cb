//! The documents that govern a store: rules, limits and registry. They lie in the file, in versions.

use std::ops::Bound;
use std::sync::Arc;

use bytes::Bytes;
use larder_format::{Limits, Micros, Registry, RegistryError, Rules};

use crate::error::{ErrorKind, Result};
use crate::store::{Snapshot, Table, corrupt};
use crate::txn::prefix_end;

/// Which document.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DocumentKind {
    /// Who may do what where. Its default is to allow everything.
    Rules,
    /// How large things may be, and how strictly formats are checked.
    Limits,
    /// What the application adds to the registry of formats.
    Registry,
}

impl DocumentKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Rules, Self::Limits, Self::Registry];

    /// Gives the name of the document.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rules => "rules",
            Self::Limits => "limits",
            Self::Registry => "registry",
        }
    }

    pub(crate) fn key_prefix(self) -> Vec<u8> {
        [self.name().as_bytes(), &[0]].concat()
    }

    /// The key of one version of the document.
    pub(crate) fn key(self, version: u64) -> Vec<u8> {
        [self.name().as_bytes(), &[0], &version.to_be_bytes()].concat()
    }
}

/// One version of a document, as it was set.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Document {
    /// Its version: 1 for the first, 0 for what holds while none was set.
    pub version: u64,
    /// When it was set.
    pub time: Micros,
    /// Who set it.
    pub principal: String,
    /// Its text, TOML.
    pub text: String,
}

impl Document {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut row = Vec::with_capacity(12 + self.principal.len() + self.text.len());
        row.extend_from_slice(&self.time.to_le_bytes());
        row.extend_from_slice(&u32::try_from(self.principal.len()).unwrap_or(0).to_le_bytes());
        row.extend_from_slice(self.principal.as_bytes());
        row.extend_from_slice(self.text.as_bytes());
        row
    }

    pub(crate) fn decode(key: &[u8], row: &[u8]) -> Result<Self> {
        let parts = || {
            let version = u64::from_be_bytes(*key.last_chunk()?);
            let (time, rest) = row.split_first_chunk::<8>()?;
            let (length, rest) = rest.split_first_chunk::<4>()?;
            let (principal, text) = rest.split_at_checked(u32::from_le_bytes(*length) as usize)?;
            Some(Self {
                version,
                time: i64::from_le_bytes(*time),
                principal: String::from_utf8(principal.to_vec()).ok()?,
                text: String::from_utf8(text.to_vec()).ok()?,
            })
        };
        parts().ok_or_else(|| corrupt("a document of the file is malformed"))
    }
}

/// The documents that are in force, parsed.
#[derive(Debug, Clone)]
pub(crate) struct Documents {
    pub(crate) rules: Arc<Rules>,
    pub(crate) limits: Arc<Limits>,
    registry: Option<Arc<Registry>>,
    texts: [Arc<Document>; 3],
}

impl Documents {
    /// What holds in a new file: everything is allowed, limits are the defaults, the registry is the shipped one.
    pub(crate) fn new() -> Result<Self> {
        let limits = parse_limits("")?;
        let none = |text: String| Arc::new(Document { version: 0, time: 0, principal: String::new(), text });
        let rules = Rules::allow_all();
        let texts = [none(rules.to_toml()), none(limits.to_toml()), none(String::new())];
        Ok(Self { rules: Arc::new(rules), limits: Arc::new(limits), registry: None, texts })
    }

    /// Reads what is in force in a view.
    pub(crate) fn read(snapshot: &Arc<Snapshot>) -> Result<Self> {
        let mut documents = Self::new()?;
        for kind in DocumentKind::ALL {
            let prefix = kind.key_prefix();
            let end = prefix_end(&prefix);
            let end = end.as_deref().map_or(Bound::Unbounded, Bound::Excluded);
            let newest =
                snapshot.range(Table::Documents, Bound::Included(&prefix), end)?.next_back().transpose()?;
            if let Some(row) = newest {
                let document = Document::decode(row.key(), row.body())?;
                let with = documents.with_registry(kind, document, Registry::extended_by_accepted);
                documents = with.map_err(|error| {
                    corrupt(format!("the stored {} cannot be read: {error}", kind.name()))
                })?;
            }
        }
        Ok(documents)
    }

    /// Gives the same documents, one of them in another version.
    pub(crate) fn with(&self, kind: DocumentKind, document: Document) -> Result<Self> {
        // What is in force can be set again.
        let is_accepted = document.text == self.get(kind).text;
        let extend = if is_accepted { Registry::extended_by_accepted } else { Registry::extended };
        self.with_registry(kind, document, extend)
    }

    fn with_registry(
        &self,
        kind: DocumentKind,
        document: Document,
        extend: fn(&Registry, &str) -> std::result::Result<Registry, RegistryError>,
    ) -> Result<Self> {
        let mut next = self.clone();
        match kind {
            DocumentKind::Rules => {
                let rules = Rules::parse(&document.text).map_err(|error| refused(kind, &error))?;
                next.rules = Arc::new(rules);
            }
            DocumentKind::Limits => next.limits = Arc::new(parse_limits(&document.text)?),
            DocumentKind::Registry => {
                let registry =
                    extend(Registry::shipped(), &document.text).map_err(|error| refused(kind, &error))?;
                next.registry = Some(Arc::new(registry));
            }
        }
        let at = DocumentKind::ALL.iter().position(|other| *other == kind).unwrap_or(0);
        if let Some(slot) = next.texts.get_mut(at) {
            *slot = Arc::new(document);
        }
        Ok(next)
    }

    pub(crate) fn get(&self, kind: DocumentKind) -> Arc<Document> {
        let [rules, limits, registry] = &self.texts;
        Arc::clone(match kind {
            DocumentKind::Rules => rules,
            DocumentKind::Limits => limits,
            DocumentKind::Registry => registry,
        })
    }

    pub(crate) fn registry(&self) -> &Registry {
        match &self.registry {
            Some(registry) => registry,
            None => Registry::shipped(),
        }
    }

    /// Tells whether a payload of this format is worth compressing.
    pub(crate) fn is_compressible(&self, data_format: &str) -> bool {
        self.registry().is_compressible(data_format)
    }
}

fn parse_limits(text: &str) -> Result<Limits> {
    Limits::parse(text).map_err(|error| refused(DocumentKind::Limits, &error))
}

fn refused(kind: DocumentKind, error: &dyn std::fmt::Display) -> crate::error::Error {
    ErrorKind::InvalidDocument { document: kind.name().to_owned(), what: error.to_string() }.into()
}

/// The row and key of a new version of a document.
pub(crate) fn row_of(kind: DocumentKind, document: &Document) -> (Bytes, Bytes) {
    (kind.key(document.version).into(), document.encode().into())
}
