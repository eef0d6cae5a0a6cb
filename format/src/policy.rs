//! Rules: who may do what on which keys, and why. What a document has is at [`Rules`].
//!
//! Invariants:
//! 1. A deny rule that applies decides, whatever allow rules apply; the first such rule of the document is named.
//!    Then the first allow rule that applies decides, and then the default.
//! 2. A right that this version has no name for is denied, by whatever document.
//! 3. [`Rules::explain`] walks the rules one by one and [`Rules::decide`] asks a trie: they give the same answer.
//! 4. [`Rules::uniform_below`] answers only when every key at and below the prefix would get that answer.
//! 5. Every capture in `who` and `except` is in every pattern of its rule's `on`.

pub(crate) mod document;
mod error;
mod explain;
mod principal;
mod right;

use std::cmp::Ordering;
use std::collections::HashMap;
use std::fmt::{self, Write as _};
use std::hash::BuildHasherDefault;

pub use error::{RulesError, RulesErrorKind};
pub use explain::{Consideration, Explanation, Finding};
pub use principal::{Principal, PrincipalError, PrincipalName};
pub use right::{Right, Rights};

use crate::limits::Limits;
use crate::pattern::{Coverage, Pattern, SegmentHasher, Trie, nth_segment};
use document::{Document, Table, quoted, write_list};

/// The most bytes a rules or limits document may have.
pub const MAX_DOCUMENT_BYTES: usize = 1024 * 1024;
/// The most rules a document may have.
pub const MAX_RULES: usize = 10_000;
/// The most pairs of an entry of `who` and a pattern of `on` that a document may have, over all its rules.
pub const MAX_RULE_ENTRIES: usize = 250_000;
/// The most bytes a rule's name may have.
pub const MAX_RULE_NAME_BYTES: usize = 255;

/// The name of the capture that is bound to the caller.
const PRINCIPAL_CAPTURE: &str = "principal";
const GROUP_PREFIX: &str = "group:";

/// What a rule does when it applies, and what the default does when none does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// The access is allowed.
    Allow,
    /// The access is denied.
    Deny,
}

impl Effect {
    /// `allow` or `deny`, as the document has it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Allow => "allow",
            Self::Deny => "deny",
        }
    }
}

impl fmt::Display for Effect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One entry of `who` or `except`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Who {
    /// `*`: every caller.
    Anyone,
    /// The principal with this name.
    Name(Box<str>),
    /// `group:NAME`: every principal in this group.
    Group(Box<str>),
    /// `{name}`: the principal whose name the capture in `on` has taken.
    Captured(Box<str>),
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("*"),
            Self::Name(name) => f.write_str(name),
            Self::Group(group) => write!(f, "{GROUP_PREFIX}{group}"),
            Self::Captured(name) => write!(f, "{{{name}}}"),
        }
    }
}

/// One rule of a document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    name: Option<Box<str>>,
    effect: Effect,
    rights: Rights,
    who: Vec<Who>,
    except: Vec<Who>,
    on: Vec<Pattern>,
}

impl Rule {
    /// Its name, if the document gives it one.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// Whether it allows or denies.
    pub fn effect(&self) -> Effect {
        self.effect
    }

    /// The rights it is about.
    pub fn rights(&self) -> Rights {
        self.rights
    }

    /// Whom it is about.
    pub fn who(&self) -> &[Who] {
        &self.who
    }

    /// Whom it is not about; sorted.
    pub fn except(&self) -> &[Who] {
        &self.except
    }

    /// The keys it is about.
    pub fn on(&self) -> &[Pattern] {
        &self.on
    }

    /// Whether `except` lists the caller or one of its groups. It is sorted: names, then groups, then captures.
    fn excepts(&self, who: &Principal) -> bool {
        let named = self.except.binary_search_by(|entry| match entry {
            Who::Anyone => Ordering::Less,
            Who::Name(name) => (**name).cmp(who.name()),
            Who::Group(_) | Who::Captured(_) => Ordering::Greater,
        });
        let listed = |group: &str| {
            self.except.binary_search_by(|entry| match entry {
                Who::Anyone | Who::Name(_) => Ordering::Less,
                Who::Group(name) => (**name).cmp(group),
                Who::Captured(_) => Ordering::Greater,
            })
        };
        named.is_ok() || who.groups().any(|group| listed(group).is_ok())
    }
}

/// What was decided, and by what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decision<'r> {
    /// Whether the access is allowed.
    pub allowed: bool,
    /// What decided.
    pub by: Deciding<'r>,
}

/// What decided an access.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Deciding<'r> {
    /// A rule.
    Rule {
        /// Its place in the document, from 1.
        number: usize,
        /// Its name, if it has one.
        name: Option<&'r str>,
    },
    /// The document's default: no rule applies.
    Default,
    /// The right has no name in this version: denied.
    UnknownRight,
    /// Something else than the rules, named so.
    Instead(&'r str),
}

impl fmt::Display for Deciding<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Rule { number, name: Some(name) } => write!(f, "\"{name}\" (rule {number})"),
            Self::Rule { number, name: None } => write!(f, "rule {number}"),
            Self::Default => f.write_str("default"),
            Self::UnknownRight => f.write_str("unknown right"),
            Self::Instead(by) => f.write_str(by),
        }
    }
}

/// A rules document, parsed and compiled.
///
/// A rules document is TOML:
///
/// ```toml
/// default = "deny"                             # or "allow"; required: no document without it
/// [[rule]]
/// name = "own drawer"                          # optional; what a refusal names
/// allow = ["read", "write", "delete", "list"]  # or deny = [...]: exactly one of them
/// who = ["*"]                                  # anyone; a principal; "group:cooks"; "{owner}"
/// except = ["group:guests"]                    # optional; as who, without "*"
/// on = "users/{principal}/**"                  # one pattern or a list
/// ```
///
/// `{principal}` in `on` is bound: that segment must be the caller's name. Any other capture takes what the key has
/// there, and `who` and `except` may then say `"{owner}"`: the caller whose name that segment is.
///
/// A deny rule that applies wins over every allow rule.
///
/// ```
/// use larder_format::{Principal, Right, Rules};
///
/// let rules = Rules::parse(r#"
///     default = "deny"
///     [[rule]]
///     name = "own drawer"
///     allow = ["read", "write"]
///     who = ["*"]
///     on = "users/{principal}/**"
/// "#)?;
/// let ana = Principal::new("ana")?;
/// assert!(rules.decide(&ana, Right::WRITE, b"users\0ana\0diary.txt\0").allowed);
/// assert!(!rules.decide(&ana, Right::WRITE, b"users\0bob\0diary.txt\0").allowed);
/// assert_eq!(rules.uniform_below(b"users\0ana\0", &ana, Right::WRITE), Some(true));
/// assert_eq!(rules.uniform_below(b"users\0", &ana, Right::WRITE), None);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone, Debug)]
pub struct Rules {
    default: Effect,
    rules: Vec<Rule>,
    open: bool,
    trie: Trie<Bucket>,
}

impl PartialEq for Rules {
    fn eq(&self, other: &Self) -> bool {
        self.default == other.default && self.rules == other.rules
    }
}

impl Eq for Rules {}

/// The rules that end at one place of the trie.
#[derive(Clone, Debug, Default)]
struct Bucket {
    deny: Entries,
    allow: Entries,
}

type ByName = HashMap<Box<[u8]>, Vec<Entry>, BuildHasherDefault<SegmentHasher>>;

/// Rules by whom they are about, so that a thousand rules for a thousand principals cost as one. Each list is in the
/// document's order.
#[derive(Clone, Debug, Default)]
struct Entries {
    /// Every right that one of them is about.
    rights: Rights,
    names: ByName,
    groups: ByName,
    others: Vec<Entry>,
}

/// One rule with one of its patterns and one entry of its `who`, which the list it is in has established.
#[derive(Clone, Debug)]
struct Entry {
    rule: usize,
    rights: Rights,
    /// The segment that must be the caller's name: `{principal}` in `on`.
    bound: Option<usize>,
    /// The segment that must be the caller's name: a capture in `who`.
    who: Option<usize>,
    /// Whether `except` lists names or groups.
    excepts_listed: bool,
    /// The segments that must not be the caller's name: captures in `except`.
    excepts: Box<[usize]>,
}

impl Entry {
    /// Whether the rule applies to a key. Segments that the key does not reach (it is a prefix) are taken to be what
    /// lets the rule apply.
    fn may_apply(&self, rules: &[Rule], who: &Principal, right: Right, key: &[u8]) -> bool {
        let name = who.name().as_bytes();
        let may_be = |at: usize| nth_segment(key, at).is_none_or(|segment| segment == name);
        self.rights.contains(right)
            && self.bound.is_none_or(may_be)
            && self.who.is_none_or(may_be)
            && !self.excepts.iter().any(|&at| nth_segment(key, at) == Some(name))
            && !(self.excepts_listed && rules.get(self.rule).is_some_and(|rule| rule.excepts(who)))
    }
}

impl Entries {
    fn push(&mut self, who: &Who, pattern: &Pattern, entry: Entry) {
        self.rights = self.rights.union(entry.rights);
        match who {
            Who::Anyone => self.others.push(entry),
            Who::Name(name) => self.names.entry(name.as_bytes().into()).or_default().push(entry),
            Who::Group(group) => self.groups.entry(group.as_bytes().into()).or_default().push(entry),
            Who::Captured(name) => self.others.push(Entry { who: capture_place(pattern, name), ..entry }),
        }
    }

    /// Lowers `best` to the first rule that applies, if that comes before it.
    fn first(&self, rules: &[Rule], who: &Principal, right: Right, key: &[u8], best: &mut usize) {
        if !self.rights.contains(right) {
            return;
        }
        let mut look = |list: &[Entry]| {
            let mut before = list.iter().take_while(|entry| entry.rule < *best);
            if let Some(entry) = before.find(|entry| entry.may_apply(rules, who, right, key)) {
                *best = entry.rule;
            }
        };
        look(&self.others);
        if let Some(list) = lookup(&self.names, who.name()) {
            look(list);
        }
        if !self.groups.is_empty() {
            who.groups().filter_map(|group| lookup(&self.groups, group)).for_each(|list| look(list));
        }
    }
}

fn lookup<'e>(table: &'e ByName, name: &str) -> Option<&'e Vec<Entry>> {
    if table.is_empty() { None } else { table.get(name.as_bytes()) }
}

fn capture_place(pattern: &Pattern, name: &str) -> Option<usize> {
    pattern.captures().find(|(known, _)| *known == name).map(|(_, at)| at)
}

/// No rule: greater than every rule's place.
const NONE: usize = usize::MAX;

impl Rules {
    /// The rules of a new file: everything is allowed.
    pub fn allow_all() -> Self {
        Self::compile(Effect::Allow, Vec::new())
    }

    /// Parses a rules document.
    ///
    /// # Errors
    /// [`RulesError`] with line and field, for the first thing that is not as the type's documentation has it:
    /// unknown fields are refused, since a misspelt `deny` would otherwise allow.
    pub fn parse(text: &str) -> Result<Self, RulesError> {
        let document = Document::parse(text)?;
        let root = document.root();
        root.only(
            &["default", "rule"],
            "default, [[rule]]; limits and strictness are a document of their own",
        )?;
        Self::from_table(&root)
    }

    pub(crate) fn from_table(root: &Table<'_>) -> Result<Self, RulesError> {
        let default = root.required("default", "\"allow\" or \"deny\"")?;
        let default = match default.text()? {
            "allow" => Effect::Allow,
            "deny" => Effect::Deny,
            other => return Err(default.refuse_value("\"allow\" or \"deny\"", other)),
        };
        let mut rules = Vec::new();
        let mut entries = 0_usize;
        for table in root.tables("rule", MAX_RULES)? {
            let rule = parse_rule(&table)?;
            entries = entries.saturating_add(rule.who.len().saturating_mul(rule.on.len()));
            if entries > MAX_RULE_ENTRIES {
                return Err(table.refuse(RulesErrorKind::TooMany {
                    what: "pairs of who and on",
                    count: entries,
                    limit: MAX_RULE_ENTRIES,
                }));
            }
            rules.push(rule);
        }
        Ok(Self::compile(default, rules))
    }

    fn compile(default: Effect, rules: Vec<Rule>) -> Self {
        let mut trie: Trie<Bucket> = Trie::default();
        for (number, rule) in rules.iter().enumerate() {
            for pattern in &rule.on {
                let Some(bucket) = trie.end_mut(pattern) else { continue };
                let entries = match rule.effect {
                    Effect::Allow => &mut bucket.allow,
                    Effect::Deny => &mut bucket.deny,
                };
                let captured = rule.except.iter().filter_map(|entry| match entry {
                    Who::Captured(name) => capture_place(pattern, name),
                    _ => None,
                });
                let entry = Entry {
                    rule: number,
                    rights: rule.rights,
                    bound: capture_place(pattern, PRINCIPAL_CAPTURE),
                    who: None,
                    excepts_listed: rule.except.iter().any(|entry| !matches!(entry, Who::Captured(_))),
                    excepts: captured.collect(),
                };
                for who in &rule.who {
                    entries.push(who, pattern, entry.clone());
                }
            }
        }
        let open = default == Effect::Allow && rules.iter().all(|rule| rule.effect == Effect::Allow);
        Self { default, rules, open, trie }
    }

    /// What happens when no rule applies.
    pub fn default_effect(&self) -> Effect {
        self.default
    }

    /// The rules, in the document's order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Whether every named right is allowed to everyone everywhere, so that nothing need be asked: the default
    /// allows and no rule denies.
    pub fn is_open(&self) -> bool {
        self.open
    }

    /// Decides one access to an encoded key. Allocates nothing.
    pub fn decide(&self, who: &Principal, right: Right, key: &[u8]) -> Decision<'_> {
        if right.name().is_none() {
            return Decision { allowed: false, by: Deciding::UnknownRight };
        }
        let (mut deny, mut allow) = (NONE, NONE);
        if !self.rules.is_empty() {
            self.trie.visit(key, |bucket| {
                bucket.deny.first(&self.rules, who, right, key, &mut deny);
                if deny == NONE {
                    bucket.allow.first(&self.rules, who, right, key, &mut allow);
                }
            });
        }
        let (allowed, rule) = match (deny, allow) {
            (NONE, NONE) => {
                return Decision { allowed: self.default == Effect::Allow, by: Deciding::Default };
            }
            (NONE, rule) => (true, rule),
            (rule, _) => (false, rule),
        };
        let name = self.rules.get(rule).and_then(Rule::name);
        Decision { allowed, by: Deciding::Rule { number: rule + 1, name } }
    }

    /// The decision that every key at and below the prefix gets, if one check can tell; otherwise each key must be
    /// asked for.
    ///
    /// Costs as much as there are rules on keys below the prefix.
    pub fn uniform_below(&self, prefix: &[u8], who: &Principal, right: Right) -> Option<bool> {
        if right.name().is_none() {
            return Some(false);
        }
        let (mut deny_all, mut allow_all, mut deny_some, mut allow_some) = (NONE, NONE, NONE, NONE);
        self.trie.visit_below(prefix, |bucket, coverage| {
            let (deny, allow) = match coverage {
                Coverage::Whole => (&mut deny_all, &mut allow_all),
                Coverage::Part => (&mut deny_some, &mut allow_some),
            };
            bucket.deny.first(&self.rules, who, right, prefix, deny);
            bucket.allow.first(&self.rules, who, right, prefix, allow);
        });
        if deny_all != NONE {
            return Some(false);
        }
        if allow_all != NONE || self.default == Effect::Allow {
            return if deny_some == NONE { Some(true) } else { None };
        }
        if allow_some == NONE { Some(false) } else { None }
    }

    /// Decides one access as [`Rules::decide`] does, and says of every rule why it applies or not.
    pub fn explain(&self, who: &Principal, right: Right, key: &[u8]) -> Explanation {
        explain::explain(self, who, right, key)
    }

    /// Tells of one access that something else decided, in place of these rules: `by` names it.
    pub fn explain_instead(
        &self,
        who: &Principal,
        right: Right,
        key: &[u8],
        allowed: bool,
        by: String,
    ) -> Explanation {
        explain::explain_instead(self, who, right, key, (allowed, by))
    }

    /// Writes the document: the same rules with the same spelling of everything that means something, comments and
    /// layout aside.
    pub fn to_toml(&self) -> String {
        let mut out = format!("default = \"{}\"\n", self.default);
        for rule in &self.rules {
            out.push_str("\n[[rule]]\n");
            if let Some(name) = &rule.name {
                let _ = writeln!(out, "name = {}", quoted(name));
            }
            let rights = rule.rights.iter().map(|right| match right.name() {
                Some(name) => quoted(name),
                None => right.number().to_string(),
            });
            write_list(&mut out, rule.effect.as_str(), rights);
            write_list(&mut out, "who", rule.who.iter().map(|entry| quoted(&entry.to_string())));
            if !rule.except.is_empty() {
                write_list(&mut out, "except", rule.except.iter().map(|entry| quoted(&entry.to_string())));
            }
            write_list(&mut out, "on", rule.on.iter().map(|pattern| quoted(pattern.as_str())));
        }
        out
    }
}

/// Parses a file that has rules and limits together, as a person writes it; the store keeps them apart. Of limits, nothing if it
/// says nothing of them.
///
/// # Errors
/// [`RulesError`] as [`Rules::parse`] and [`Limits::parse`] have it.
pub fn parse_combined(text: &str) -> Result<(Rules, Option<Limits>), RulesError> {
    let document = Document::parse(text)?;
    let root = document.root();
    let known: Vec<&str> = ["default", "rule"].into_iter().chain(Limits::FIELDS).collect();
    root.only(&known, "default, [[rule]], [[limit]], [[strictness]] and the limits' own fields")?;
    let limits = Limits::from_table(&root)?;
    let has_limits = Limits::FIELDS.iter().any(|field| root.get(field).is_some());
    Ok((Rules::from_table(&root)?, has_limits.then_some(limits)))
}

fn parse_rule(table: &Table<'_>) -> Result<Rule, RulesError> {
    table.only(&["name", "allow", "deny", "who", "except", "on"], "name, allow or deny, who, except, on")?;
    let name = match table.get("name") {
        None => None,
        Some(value) => {
            let name = value.text()?;
            if name.is_empty() || name.len() > MAX_RULE_NAME_BYTES || name.contains(char::is_control) {
                return Err(value.refuse_value("a name of 1 to 255 bytes without control characters", name));
            }
            Some(name.into())
        }
    };
    let (effect, list) = match (table.get("allow"), table.get("deny")) {
        (Some(list), None) => (Effect::Allow, list),
        (None, Some(list)) => (Effect::Deny, list),
        (Some(_), Some(second)) => return Err(second.refuse(RulesErrorKind::AllowAndDeny)),
        (None, None) => return Err(table.refuse(RulesErrorKind::NeitherAllowNorDeny)),
    };
    let mut rights = Rights::NONE;
    for item in list.items_not_empty()? {
        rights = rights.with(right::parse(&item)?);
    }
    let on = table.patterns("on")?;
    let mut who = Vec::new();
    for item in
        table.required("who", "[\"*\"], or names, \"group:NAME\", \"{capture}\"")?.items_not_empty()?
    {
        who.push(parse_who(&item, &on)?);
    }
    who.sort();
    who.dedup();
    let mut except = Vec::new();
    if let Some(value) = table.get("except") {
        for item in value.items()? {
            let entry = parse_who(&item, &on)?;
            let dead =
                entry == Who::Anyone || matches!(&entry, Who::Captured(name) if &**name == PRINCIPAL_CAPTURE);
            if dead {
                return Err(item.refuse(RulesErrorKind::NeverApplies { entry: entry.to_string() }));
            }
            except.push(entry);
        }
    }
    except.sort();
    except.dedup();
    Ok(Rule { name, effect, rights, who, except, on })
}

fn parse_who(item: &document::Item<'_>, on: &[Pattern]) -> Result<Who, RulesError> {
    let text = item.text()?;
    if text == "*" {
        return Ok(Who::Anyone);
    }
    if let Some(name) = text.strip_prefix('{').and_then(|tail| tail.strip_suffix('}')) {
        if let Some(pattern) = on.iter().find(|pattern| capture_place(pattern, name).is_none()) {
            let (capture, pattern) = (document::cut(name), pattern.to_string());
            return Err(item.refuse(RulesErrorKind::UnboundCapture { capture, pattern }));
        }
        return Ok(Who::Captured(name.into()));
    }
    let (name, make): (&str, fn(Box<str>) -> Who) = match text.strip_prefix(GROUP_PREFIX) {
        Some(group) => (group, Who::Group),
        None => (text, Who::Name),
    };
    PrincipalName::parse(name).map_err(|error| item.refuse(RulesErrorKind::Principal(error)))?;
    Ok(make(name.into()))
}
