//! Saying why: every rule is looked at by itself, without the trie, so that the tests have two answers to compare.

use std::fmt;

use super::{Deciding, Decision, Effect, PRINCIPAL_CAPTURE, Principal, Right, Rights, Rule, Rules, Who};
use crate::pattern::{Pattern, nth_segment, show_key};

/// What an access was decided by, and what every rule has to do with it.
///
/// Its [`Display`](fmt::Display) names the deciding rule, then every other rule on this key, then how many rules are
/// on other keys. Keys and names are shown as they are: a tool that prints to a terminal escapes what could
/// mislead there.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Explanation {
    /// Whether the access is allowed.
    pub allowed: bool,
    /// The right that was asked for.
    pub right: Right,
    /// The key, as it is written.
    pub key: String,
    /// Who asked.
    pub principal: String,
    /// The place in [`considered`](Self::considered) of the rule that decided; `None` for the default.
    pub deciding: Option<usize>,
    /// What the document's default is.
    pub default: Effect,
    /// What decided in place of the rules, if something did: the holder of the file is asked nothing, and an
    /// application can have an authorizer of its own.
    pub instead: Option<String>,
    /// Every rule, in the document's order; none where something else decided.
    pub considered: Vec<Consideration>,
}

/// What one rule has to do with an access.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Consideration {
    /// The rule's place in the document, from 1.
    pub number: usize,
    /// Its name, if it has one.
    pub name: Option<String>,
    /// Whether it allows or denies.
    pub effect: Effect,
    /// What the captures of the pattern that came furthest stand for.
    pub captures: Vec<(String, String)>,
    /// Whether it applies, or why not.
    pub finding: Finding,
}

/// Whether a rule applies, or why not. Ordered by how far it came.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Finding {
    /// No pattern of it matches the key.
    OtherKeys,
    /// It is about other rights, these.
    OtherRights(String),
    /// `{principal}` in its pattern stands for somebody else.
    NotBound,
    /// Its `who` does not name the caller.
    NotAmong,
    /// Its `except` does, by this entry.
    Excepted(String),
    /// It applies.
    Applies,
}

impl Explanation {
    /// The decision alone, the same that [`Rules::decide`] gives.
    pub fn decision(&self) -> Decision<'_> {
        if let Some(by) = &self.instead {
            return Decision { allowed: self.allowed, by: Deciding::Instead(by) };
        }
        let by = match self.deciding.and_then(|at| self.considered.get(at)) {
            Some(rule) => Deciding::Rule { number: rule.number, name: rule.name.as_deref() },
            None if self.right.name().is_none() => Deciding::UnknownRight,
            None => Deciding::Default,
        };
        Decision { allowed: self.allowed, by }
    }
}

pub(super) fn explain(rules: &Rules, who: &Principal, right: Right, key: &[u8]) -> Explanation {
    let considered: Vec<Consideration> = rules
        .rules
        .iter()
        .enumerate()
        .map(|(at, rule)| {
            let (finding, captures) = consider(rule, who, right, key);
            let name = rule.name().map(str::to_owned);
            Consideration { number: at + 1, name, effect: rule.effect, captures, finding }
        })
        .collect();
    let first = |effect| considered.iter().position(|c| c.finding == Finding::Applies && c.effect == effect);
    let known = right.name().is_some();
    let deciding = if known { first(Effect::Deny).or_else(|| first(Effect::Allow)) } else { None };
    let effect = deciding.and_then(|at| considered.get(at)).map_or(rules.default, |rule| rule.effect);
    Explanation {
        allowed: known && effect == Effect::Allow,
        right,
        key: show_key(key),
        principal: who.name().to_owned(),
        deciding,
        default: rules.default,
        instead: None,
        considered,
    }
}

pub(super) fn explain_instead(
    rules: &Rules,
    who: &Principal,
    right: Right,
    key: &[u8],
    (allowed, by): (bool, String),
) -> Explanation {
    Explanation {
        allowed,
        right,
        key: show_key(key),
        principal: who.name().to_owned(),
        deciding: None,
        default: rules.default,
        instead: Some(by),
        considered: Vec::new(),
    }
}

type Named = Vec<(String, String)>;

fn consider(rule: &Rule, who: &Principal, right: Right, key: &[u8]) -> (Finding, Named) {
    let mut furthest = (Finding::OtherKeys, Vec::new());
    for pattern in rule.on.iter().filter(|pattern| pattern.matches_encoded(key)) {
        let finding = consider_matched(rule, pattern, who, right, key);
        if finding > furthest.0 {
            let shown = |at| String::from_utf8_lossy(nth_segment(key, at).unwrap_or_default()).into_owned();
            furthest = (finding, pattern.captures().map(|(name, at)| (name.to_owned(), shown(at))).collect());
        }
    }
    furthest
}

fn consider_matched(rule: &Rule, pattern: &Pattern, who: &Principal, right: Right, key: &[u8]) -> Finding {
    let is_caller = |capture: &str| {
        let place = pattern.captures().find(|(name, _)| *name == capture);
        place.is_some_and(|(_, at)| nth_segment(key, at) == Some(who.name().as_bytes()))
    };
    let names_caller = |entry: &&Who| match entry {
        Who::Anyone => true,
        Who::Name(name) => **name == *who.name(),
        Who::Group(group) => who.groups().any(|known| *known == **group),
        Who::Captured(capture) => is_caller(capture),
    };
    if !rule.rights.contains(right) {
        return Finding::OtherRights(Rights::to_string(&rule.rights));
    }
    if pattern.captures().any(|(name, _)| name == PRINCIPAL_CAPTURE) && !is_caller(PRINCIPAL_CAPTURE) {
        return Finding::NotBound;
    }
    if !rule.who.iter().any(|entry| names_caller(&entry)) {
        return Finding::NotAmong;
    }
    match rule.except.iter().find(names_caller) {
        Some(entry) => Finding::Excepted(entry.to_string()),
        None => Finding::Applies,
    }
}

impl Consideration {
    fn write_captures(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, (name, segment)) in self.captures.iter().enumerate() {
            write!(f, "{}{name} = {segment}", if at == 0 { "captures " } else { ", " })?;
        }
        Ok(())
    }

    fn label(&self) -> String {
        Deciding::Rule { number: self.number, name: self.name.as_deref() }.to_string()
    }
}

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { right, key, principal, .. } = self;
        let verdict = if self.allowed { "allowed" } else { "denied" };
        write!(f, "{verdict:<9}{right}   {key}   {principal}\n  by ")?;
        if let Some(by) = &self.instead {
            return write!(f, "{by}  (no rule was asked)");
        }
        match self.deciding.and_then(|at| self.considered.get(at)) {
            Some(rule) => {
                if let Some(name) = &rule.name {
                    write!(f, "\"{name}\"  ")?;
                }
                write!(f, "(rule {}, {}", rule.number, rule.effect)?;
                if !rule.captures.is_empty() {
                    f.write_str("; ")?;
                    rule.write_captures(f)?;
                }
                f.write_str(")")?;
            }
            None if right.name().is_none() => {
                f.write_str("the right, which this version does not know  (deny)")?
            }
            None => write!(f, "default  ({}; no rule applies)", self.default)?,
        }
        let mut elsewhere = 0_usize;
        for (at, rule) in self.considered.iter().enumerate() {
            if rule.finding == Finding::OtherKeys {
                elsewhere += 1;
            } else if Some(at) != self.deciding {
                self.write_other(f, rule)?;
            }
        }
        match elsewhere {
            0 => Ok(()),
            1 => f.write_str("\n  1 rule is on other keys"),
            more => write!(f, "\n  {more} rules are on other keys"),
        }
    }
}

impl Explanation {
    fn write_other(&self, f: &mut fmt::Formatter<'_>, rule: &Consideration) -> fmt::Result {
        write!(f, "\n  {} ", rule.label())?;
        let principal = &self.principal;
        match &rule.finding {
            Finding::Applies if !self.allowed && rule.effect == Effect::Allow => {
                f.write_str("matches too: it allows, and deny wins")
            }
            Finding::Applies => write!(f, "matches too, {}", rule.effect),
            Finding::OtherKeys => f.write_str("does not match: it is on other keys"),
            Finding::OtherRights(rights) => write!(f, "does not match: it is about {rights}"),
            Finding::NotBound => {
                f.write_str("does not match: ")?;
                rule.write_captures(f)
            }
            Finding::NotAmong => {
                write!(f, "does not match: {principal} is not among its who")?;
                self.write_captured(f, rule)
            }
            Finding::Excepted(entry) => {
                write!(f, "does not match: {principal} is excepted by \"{entry}\"")?;
                self.write_captured(f, rule)
            }
        }
    }

    fn write_captured(&self, f: &mut fmt::Formatter<'_>, rule: &Consideration) -> fmt::Result {
        if rule.captures.is_empty() {
            return Ok(());
        }
        f.write_str("; ")?;
        rule.write_captures(f)
    }
}
