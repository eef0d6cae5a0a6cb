//! Who may do what: the question, the answer, and the hook where another answerer can stand.

use std::sync::Arc;

use larder_format::{Key, Pattern, Prefix, Principal, Record, Right};

use crate::error::{Error, ErrorKind, Result};

/// A question of access.
#[derive(Debug, Clone, Copy)]
#[non_exhaustive]
pub struct AccessRequest<'a> {
    /// Who asks.
    pub principal: &'a Principal,
    /// What for.
    pub right: Right,
    /// Where: a key, or a place of which only what is below is meant. The root has an empty text.
    pub place: &'a str,
    /// The same in its encoded form: every segment followed by a byte of 0.
    pub encoded: &'a [u8],
}

impl<'a> AccessRequest<'a> {
    /// Makes the question that is asked of an authorizer, to test one.
    #[must_use]
    pub fn new(principal: &'a Principal, right: Right, key: &'a Key) -> Self {
        Self { principal, right, place: key.as_str(), encoded: key.encoded() }
    }
}

/// An answer, with what decided it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessDecision {
    /// Whether the access is allowed.
    pub allowed: bool,
    /// What decided: the name of a rule, or of a policy.
    pub by: String,
}

/// Decides about access. The stored rules are one; an adapter to Cedar or OPA is another.
///
/// Asked inside the transaction that makes the change: synchronous, without I/O, quick.
pub trait Authorizer: Send + Sync + 'static {
    /// Decides, and says what decided.
    fn decide(&self, request: &AccessRequest<'_>) -> AccessDecision;

    /// Gives the decision where it is the same for every key at and below the place; `None` where it may differ.
    fn uniform_below(&self, request: &AccessRequest<'_>) -> Option<bool> {
        let _ = request;
        None
    }
}

/// Refuses records and payloads that the application does not want, by key pattern.
///
/// Asked inside the transaction that makes the change: synchronous, without I/O, quick.
pub trait Validator: Send + Sync + 'static {
    /// Looks at a record that is about to be stored; `head` holds the payload where it is in memory, and at least
    /// its first 512 bytes otherwise.
    ///
    /// # Errors
    /// What is wrong, and in which field.
    fn validate(&self, key: &Key, record: &Record, head: &[u8]) -> Result<(), Objection>;
}

/// Why a validator refuses.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Objection {
    /// The field that is wrong.
    pub field: String,
    /// What is wrong with it.
    pub what: String,
}

impl<F> Validator for F
where
    F: Fn(&Key, &Record, &[u8]) -> Result<(), Objection> + Send + Sync + 'static,
{
    fn validate(&self, key: &Key, record: &Record, head: &[u8]) -> Result<(), Objection> {
        self(key, record, head)
    }
}

/// What the application hooks into the guard.
#[derive(Clone, Default)]
pub(crate) struct Hooks {
    pub(crate) authorizer: Option<Arc<dyn Authorizer>>,
    pub(crate) validators: Vec<(Pattern, Arc<dyn Validator>)>,
    pub(crate) audit_allowed: bool,
}

/// The name of the holder of the file, which no other principal can have.
const ROOT: &str = "root";

/// Who calls: a principal with its groups, or the holder of the file.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    principal: Arc<Principal>,
    is_root: bool,
}

impl Caller {
    /// The holder of the file, to whom no rule applies.
    pub(crate) fn root() -> Result<Self> {
        Ok(Self { principal: Arc::new(named(ROOT, [])?), is_root: true })
    }

    pub(crate) fn named<'g>(name: &str, groups: impl IntoIterator<Item = &'g str>) -> Result<Self> {
        if name == ROOT {
            let what = format!("{ROOT:?} is the holder of the file; ask for its session with Larder::root");
            return Err(ErrorKind::InvalidName { field: "principal", what }.into());
        }
        Ok(Self { principal: Arc::new(named(name, groups)?), is_root: false })
    }

    /// Whoever has a name, the holder of the file too.
    pub(crate) fn of<'g>(name: &str, groups: impl IntoIterator<Item = &'g str>) -> Result<Self> {
        if name == ROOT { Self::root() } else { Self::named(name, groups) }
    }

    pub(crate) fn in_groups<'g>(&self, groups: impl IntoIterator<Item = &'g str>) -> Result<Self> {
        Ok(Self { principal: Arc::new(named(self.principal.name(), groups)?), is_root: self.is_root })
    }

    pub(crate) fn name(&self) -> &str {
        self.principal.name()
    }

    pub(crate) fn principal(&self) -> &Principal {
        &self.principal
    }

    pub(crate) fn is_root(&self) -> bool {
        self.is_root
    }
}

fn named<'g>(name: &str, groups: impl IntoIterator<Item = &'g str>) -> Result<Principal> {
    Principal::new(name)
        .and_then(|principal| principal.with_groups(groups))
        .map_err(|error| ErrorKind::InvalidName { field: "principal", what: error.to_string() }.into())
}

/// A place in the tree about which access is asked.
pub(crate) trait Place {
    fn text(&self) -> &str;
    fn bytes(&self) -> &[u8];
}

impl Place for Key {
    fn text(&self) -> &str {
        self.as_str()
    }

    fn bytes(&self) -> &[u8] {
        self.encoded()
    }
}

impl Place for Prefix {
    fn text(&self) -> &str {
        self.as_str()
    }

    fn bytes(&self) -> &[u8] {
        self.encoded()
    }
}

pub(crate) fn denied(caller: &Caller, right: Right, by: String) -> Error {
    ErrorKind::AccessDenied { principal: caller.name().to_owned(), right: right.to_string(), by }.into()
}
