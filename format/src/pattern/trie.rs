//! Many patterns as one tree of segments.
//!
//! A node has its literal children in a hash table and one child for `*` and all captures together (what a capture
//! is called matters only where the pattern ends). So a match follows at most two children at each node, meets no
//! node twice, and costs what the patterns that fit the key's beginning cost, whatever else is in the set.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::{Pattern, PatternSegment, nth_segment, split_segment};

/// Hashes short byte strings. Without a secret: the tables hold what the rules' author wrote, and whoever merely
/// asks cannot fill them.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct SegmentHasher(u64);

impl Hasher for SegmentHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = twox_hash::XxHash3_64::oneshot_with_seed(self.0, bytes);
    }

    /// The length prefix of a slice: xxh3 tells lengths apart by itself.
    fn write_usize(&mut self, _: usize) {}
}

type Literals = HashMap<Box<[u8]>, usize, BuildHasherDefault<SegmentHasher>>;

#[derive(Clone, Debug, Default)]
struct Node {
    literals: Literals,
    single: Option<usize>,
    here: Option<usize>,
    rest: Option<usize>,
}

/// How much of what is at or below a prefix a pattern matches.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Coverage {
    /// The prefix and everything below it.
    Whole,
    /// Perhaps some of it.
    Part,
}

/// The tree, with one `B` for each place at which patterns end.
#[derive(Clone, Debug)]
pub(crate) struct Trie<B> {
    nodes: Vec<Node>,
    ends: Vec<B>,
}

impl<B> Default for Trie<B> {
    fn default() -> Self {
        Self { nodes: vec![Node::default()], ends: Vec::new() }
    }
}

impl<B: Default> Trie<B> {
    /// The `B` at which this pattern ends, made if it is the first.
    ///
    /// `None` never happens: node numbers are the vector's own. It is there so that nothing can panic.
    pub(crate) fn end_mut(&mut self, pattern: &Pattern) -> Option<&mut B> {
        let mut at = 0;
        for segment in pattern.segments() {
            let fresh = self.nodes.len();
            let node = self.nodes.get_mut(at)?;
            at = match segment {
                PatternSegment::Literal(literal) => {
                    *node.literals.entry(literal.as_bytes().into()).or_insert(fresh)
                }
                PatternSegment::Any | PatternSegment::Capture(_) => *node.single.get_or_insert(fresh),
            };
            if at == fresh {
                self.nodes.push(Node::default());
            }
        }
        let fresh = self.ends.len();
        let node = self.nodes.get_mut(at)?;
        let end = *if pattern.has_rest() { &mut node.rest } else { &mut node.here }.get_or_insert(fresh);
        if end == fresh {
            self.ends.push(B::default());
        }
        self.ends.get_mut(end)
    }
}

impl<B> Trie<B> {
    /// Visits the end of every pattern that matches the key.
    pub(crate) fn visit<'t>(&'t self, key: &[u8], mut each: impl FnMut(&'t B)) {
        self.visit_at(0, key, &mut each);
    }

    fn visit_at<'t>(&'t self, at: usize, key: &[u8], each: &mut impl FnMut(&'t B)) {
        let Some(node) = self.nodes.get(at) else { return };
        if let Some(end) = self.end(node.rest) {
            each(end);
        }
        let Some((head, tail)) = split_segment(key) else {
            if let Some(end) = self.end(node.here) {
                each(end);
            }
            return;
        };
        if let Some(child) = node.literal(head) {
            self.visit_at(child, tail, each);
        }
        if let Some(child) = node.single {
            self.visit_at(child, tail, each);
        }
    }

    /// Visits the end of every pattern that matches the prefix or may match a key below it.
    pub(crate) fn visit_below<'t>(&'t self, prefix: &[u8], mut each: impl FnMut(&'t B, Coverage)) {
        self.visit_below_at(0, prefix, &mut each);
    }

    fn visit_below_at<'t>(&'t self, at: usize, prefix: &[u8], each: &mut impl FnMut(&'t B, Coverage)) {
        let Some(node) = self.nodes.get(at) else { return };
        if let Some(end) = self.end(node.rest) {
            each(end, Coverage::Whole);
        }
        let Some((head, tail)) = split_segment(prefix) else {
            if let Some(end) = self.end(node.here) {
                each(end, Coverage::Part);
            }
            node.children().for_each(|child| self.visit_all(child, each));
            return;
        };
        if let Some(child) = node.literal(head) {
            self.visit_below_at(child, tail, each);
        }
        if let Some(child) = node.single {
            self.visit_below_at(child, tail, each);
        }
    }

    fn visit_all<'t>(&'t self, at: usize, each: &mut impl FnMut(&'t B, Coverage)) {
        let Some(node) = self.nodes.get(at) else { return };
        for end in [self.end(node.rest), self.end(node.here)].into_iter().flatten() {
            each(end, Coverage::Part);
        }
        node.children().for_each(|child| self.visit_all(child, each));
    }

    /// Whether a pattern has structure below the prefix.
    pub(crate) fn may_differ_below(&self, prefix: &[u8]) -> bool {
        self.may_differ_at(0, prefix)
    }

    fn may_differ_at(&self, at: usize, prefix: &[u8]) -> bool {
        let Some(node) = self.nodes.get(at) else { return false };
        let Some((head, tail)) = split_segment(prefix) else { return node.children().next().is_some() };
        [node.literal(head), node.single].into_iter().flatten().any(|child| self.may_differ_at(child, tail))
    }

    fn end(&self, number: Option<usize>) -> Option<&B> {
        self.ends.get(number?)
    }
}

impl Node {
    fn literal(&self, segment: &[u8]) -> Option<usize> {
        if self.literals.is_empty() { None } else { self.literals.get(segment).copied() }
    }

    fn children(&self) -> impl Iterator<Item = usize> {
        self.literals.values().copied().chain(self.single)
    }
}

/// Many patterns, each with a value, matched at once.
///
/// ```
/// use larder_format::{Pattern, PatternSet};
///
/// let mut set = PatternSet::new();
/// set.insert(&Pattern::parse("users/{owner}/**")?, "a drawer");
/// set.insert(&Pattern::parse("recipes/*")?, "a recipe");
/// let mut found = Vec::new();
/// set.for_each_match(b"users\0ana\0photo.png\0", |value, captures| {
///     found.push((*value, captures.get("owner").map(<[u8]>::to_vec)));
/// });
/// assert_eq!(found, [("a drawer", Some(b"ana".to_vec()))]);
/// # Ok::<(), larder_format::PatternError>(())
/// ```
#[derive(Clone, Debug)]
pub struct PatternSet<T> {
    trie: Trie<Vec<Item<T>>>,
    len: usize,
}

#[derive(Clone, Debug)]
struct Item<T> {
    value: T,
    names: Box<[(Box<str>, usize)]>,
}

impl<T> Default for PatternSet<T> {
    fn default() -> Self {
        Self { trie: Trie::default(), len: 0 }
    }
}

impl<T> PatternSet<T> {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a pattern; the same pattern may be there more than once.
    pub fn insert(&mut self, pattern: &Pattern, value: T) {
        if let Some(end) = self.trie.end_mut(pattern) {
            let names = pattern.captures().map(|(name, at)| (name.into(), at)).collect();
            end.push(Item { value, names });
            self.len += 1;
        }
    }

    /// How many patterns there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Visits every pattern that matches an encoded key, in no particular order, without allocating.
    pub fn for_each_match<'s>(&'s self, key: &'s [u8], mut each: impl FnMut(&'s T, Captures<'s>)) {
        self.trie.visit(key, |items| {
            for item in items {
                each(&item.value, Captures { names: &item.names, key });
            }
        });
    }

    /// Whether two keys strictly below the prefix might be matched by different patterns.
    ///
    /// `false` is certain: what matches one key below the prefix matches all of them. `true` may be too careful
    /// (`a/*/**` below `a`).
    pub fn may_differ_below(&self, prefix: &[u8]) -> bool {
        self.trie.may_differ_below(prefix)
    }
}

/// What a pattern's captures stand for in the key that it matched.
#[derive(Clone, Copy, Debug)]
pub struct Captures<'s> {
    names: &'s [(Box<str>, usize)],
    key: &'s [u8],
}

impl<'s> Captures<'s> {
    /// The segment that this capture stands for, if the pattern has it.
    pub fn get(&self, name: &str) -> Option<&'s [u8]> {
        self.iter().find(|(known, _)| *known == name).map(|(_, segment)| segment)
    }

    /// Every capture and its segment, in the pattern's order.
    pub fn iter(&self) -> impl Iterator<Item = (&'s str, &'s [u8])> + use<'s> {
        let key = self.key;
        self.names.iter().filter_map(move |(name, at)| Some((&**name, nth_segment(key, *at)?)))
    }
}
