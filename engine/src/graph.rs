//! Graphs: labelled edges between nodes, and ways along them.
//!
//! A graph is a collection, so rules, limits, snapshots and `verify` know it. A node is any typed value, and is there as
//! long as it has an edge.
//!
//! ```text
//! row:        [label, from, to] -> the edge's fields, its label under ":", where it leads under ">"; and its value
//! index "to": label, to
//! ```

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use larder_format::{CollectionDefinition, IndexDefinition, Part, Tuple};

use crate::collection::{IntoRowKey, Row, RowDraft, RowRange, Rows};
use crate::error::{ErrorKind, Result};
use crate::txn::CollectionMut;

const LABEL: &str = ":";
const TO: &str = ">";
const BY_TO: &str = "to";
/// The most nodes that a search for a cycle looks at.
const SEARCHED_MAX: usize = 1_000_000;

/// Which way to go along edges.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// From where an edge begins to where it leads.
    Down,
    /// Back.
    Up,
}

/// How far to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WalkLimits {
    /// The most edges from a start to a node.
    pub depth_max: u32,
    /// The most nodes.
    pub nodes_max: usize,
}

impl Default for WalkLimits {
    /// To a depth of 100, and a million nodes.
    fn default() -> Self {
        Self { depth_max: 100, nodes_max: 1_000_000 }
    }
}

/// An edge, as it was when it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edge {
    /// Where it begins.
    pub from: Part,
    /// Where it leads.
    pub to: Part,
    row: Row,
}

impl Edge {
    /// Gives a field, if the edge has it.
    #[must_use]
    pub fn field(&self, name: &str) -> Option<Part> {
        self.row.field(name)
    }

    /// Tells whether it has a field.
    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.row.has(name)
    }

    /// Gives the row: its fields and its value.
    #[must_use]
    pub fn row(&self) -> &Row {
        &self.row
    }

    fn end(&self, direction: Direction) -> &Part {
        match direction {
            Direction::Down => &self.to,
            Direction::Up => &self.from,
        }
    }
}

/// A node that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reached {
    /// The node.
    pub node: Part,
    /// How many edges it is away from the nearest start.
    pub depth: u32,
    /// The node before it, on a shortest way.
    pub before: Part,
}

/// What was reached: each node once, the nearest first, those of the same depth in the order in which the ones before them
/// were reached and then of their own.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
#[must_use]
pub struct Walked {
    /// The nodes; the starts are not among them.
    pub reached: Vec<Reached>,
    /// Whether there was more than the limits let be seen.
    pub is_cut: bool,
}

/// A longest way.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct LongestPath {
    /// The nodes, in the order of the way.
    pub nodes: Vec<Part>,
    /// The sum of their weights.
    pub length: u64,
}

/// A graph whose edges are the rows of a collection.
#[derive(Debug)]
pub struct Graph<R> {
    rows: R,
}

/// Gives how the collection of a graph is defined; rights can be set with [`CollectionDefinition::rights`].
#[must_use]
pub fn graph_definition() -> CollectionDefinition {
    CollectionDefinition::new().index(IndexDefinition::new(BY_TO).by(LABEL).by(TO))
}

fn key_of(label: &Part, from: &Part, to: &Part) -> Result<Tuple> {
    vec![label.clone(), from.clone(), to.clone()].into_row_key()
}

fn edge_of(row: Row) -> Result<Edge> {
    match row.key().parts() {
        [_, from, to] => Ok(Edge { from: from.clone(), to: to.clone(), row }),
        parts => {
            let expected = "the collection of a graph: rows of a label and two nodes".to_owned();
            Err(ErrorKind::InvalidArgument { argument: "graph", expected, got: format!("{parts:?}") }.into())
        }
    }
}

impl<R: Rows> Graph<R> {
    /// Takes the rows of a collection that was defined as a [graph](graph_definition).
    pub fn over(rows: R) -> Self {
        Self { rows }
    }

    /// Gives the rows back.
    pub fn into_rows(self) -> R {
        self.rows
    }

    /// Gives an edge, if it is there.
    ///
    /// # Errors
    /// As [`Rows::get`].
    pub fn edge(
        &mut self,
        label: impl Into<Part>,
        from: impl Into<Part>,
        to: impl Into<Part>,
    ) -> Result<Option<Edge>> {
        let key = key_of(&label.into(), &from.into(), &to.into())?;
        self.rows.get(key)?.map(edge_of).transpose()
    }

    /// Gives all edges of a node in a direction, in the order of the nodes at their other ends.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn edges(
        &mut self,
        label: impl Into<Part>,
        node: impl Into<Part>,
        direction: Direction,
    ) -> Result<Vec<Edge>> {
        let range = RowRange::all().with(label).with(node);
        let rows = match direction {
            Direction::Down => self.rows.all(None, &range)?,
            Direction::Up => self.rows.all(Some(BY_TO), &range)?,
        };
        rows.into_iter().map(edge_of).collect()
    }

    /// Gives the nodes that can be reached, breadth first, however many ways lead to them.
    ///
    /// # Errors
    /// As [`Rows::find`].
    pub fn walk<P: Into<Part>>(
        &mut self,
        label: impl Into<Part>,
        starts: impl IntoIterator<Item = P>,
        direction: Direction,
        limits: WalkLimits,
    ) -> Result<Walked> {
        let label = label.into();
        let mut walked = Walked::default();
        let mut ahead: VecDeque<(Part, u32)> = starts.into_iter().map(|start| (start.into(), 0)).collect();
        let mut seen: BTreeSet<Part> = ahead.iter().map(|(start, _)| start.clone()).collect();
        while let Some((node, depth)) = ahead.pop_front() {
            for edge in self.edges(label.clone(), node.clone(), direction)? {
                let next = edge.end(direction);
                if seen.contains(next) {
                    continue;
                }
                if walked.reached.len() >= limits.nodes_max {
                    walked.is_cut = true;
                    return Ok(walked);
                }
                if depth >= limits.depth_max {
                    walked.is_cut = true;
                    break;
                }
                seen.insert(next.clone());
                walked.reached.push(Reached { node: next.clone(), depth: depth + 1, before: node.clone() });
                ahead.push_back((next.clone(), depth + 1));
            }
        }
        Ok(walked)
    }

    /// Gives a way from one node to another along edges, both of them in it; `None` if there is none. Looks from both
    /// ends, so it is quick where either has few ways to go.
    ///
    /// # Errors
    /// [`CascadeTooLarge`](ErrorKind::CascadeTooLarge) after a million nodes; as [`Rows::find`].
    pub fn path(
        &mut self,
        label: impl Into<Part>,
        from: impl Into<Part>,
        to: impl Into<Part>,
    ) -> Result<Option<Vec<Part>>> {
        let (label, from, to) = (label.into(), from.into(), to.into());
        if from == to {
            return Ok(Some(vec![from]));
        }
        let mut down = Frontier::new(from);
        let mut up = Frontier::new(to);
        loop {
            let is_down = down.ahead.len() <= up.ahead.len();
            let (near, far, direction) = match is_down {
                true => (&mut down, &up, Direction::Down),
                false => (&mut up, &down, Direction::Up),
            };
            let Some(node) = near.ahead.pop_front() else { return Ok(None) };
            for edge in self.edges(label.clone(), node.clone(), direction)? {
                let next = edge.end(direction).clone();
                if near.before.contains_key(&next) {
                    continue;
                }
                near.before.insert(next.clone(), Some(node.clone()));
                if far.before.contains_key(&next) {
                    let mut path = down.way_back(&next);
                    path.reverse();
                    path.extend(up.way_back(&next).into_iter().skip(1));
                    return Ok(Some(path));
                }
                near.ahead.push_back(next);
            }
            if down.before.len() + up.before.len() > SEARCHED_MAX {
                return Err(ErrorKind::CascadeTooLarge { limit: SEARCHED_MAX as u64 }.into());
            }
        }
    }

    /// Gives the starts and all nodes below them so that every edge leads from an earlier one to a later one; of several
    /// that could be next, the one that a [walk](Graph::walk) finds first. A. B. Kahn, "Topological sorting of large
    /// networks", 1962.
    ///
    /// # Errors
    /// [`DependencyCycle`](ErrorKind::DependencyCycle); [`CascadeTooLarge`](ErrorKind::CascadeTooLarge) beyond
    /// `nodes_max`; as [`Rows::find`].
    pub fn topological_order<P: Into<Part>>(
        &mut self,
        label: impl Into<Part>,
        starts: impl IntoIterator<Item = P>,
        nodes_max: usize,
    ) -> Result<Vec<Part>> {
        Ok(self.below(label.into(), starts, nodes_max)?.order()?.0)
    }

    /// Gives the way of the greatest weight among the starts and all nodes below them: the critical path, where a weight is
    /// how long something takes. Of several, the one whose nodes come first in the topological order.
    ///
    /// # Errors
    /// As [`Graph::topological_order`], and those of `weight`.
    pub fn longest_path<P: Into<Part>>(
        &mut self,
        label: impl Into<Part>,
        starts: impl IntoIterator<Item = P>,
        nodes_max: usize,
        weight: impl FnMut(&Part) -> Result<u64>,
    ) -> Result<LongestPath> {
        let below = self.below(label.into(), starts, nodes_max)?;
        below.longest(weight)
    }

    /// Reads the nodes below some, and the edges between them.
    fn below<P: Into<Part>>(
        &mut self,
        label: Part,
        starts: impl IntoIterator<Item = P>,
        nodes_max: usize,
    ) -> Result<Below> {
        let mut below = Below::default();
        for start in starts {
            below.number(start.into());
        }
        let mut at = 0;
        while let Some(node) = below.nodes.get(at).cloned() {
            let edges = self.edges(label.clone(), node, Direction::Down)?;
            let children = edges.into_iter().map(|edge| below.number(edge.to)).collect();
            below.children.push(children);
            if below.nodes.len() > nodes_max {
                return Err(ErrorKind::CascadeTooLarge { limit: nodes_max as u64 }.into());
            }
            at += 1;
        }
        Ok(below)
    }
}

/// One end of a search: what is to be looked at, and from where everything was reached.
struct Frontier {
    ahead: VecDeque<Part>,
    before: BTreeMap<Part, Option<Part>>,
}

impl Frontier {
    fn new(start: Part) -> Self {
        Self { ahead: VecDeque::from([start.clone()]), before: BTreeMap::from([(start, None)]) }
    }

    /// Gives the way from a node to the start.
    fn way_back(&self, node: &Part) -> Vec<Part> {
        let (mut way, mut at) = (Vec::new(), Some(node));
        while let Some(node) = at {
            way.push(node.clone());
            at = self.before.get(node).and_then(Option::as_ref);
        }
        way
    }
}

/// A part of a graph, in memory: nodes by the numbers in which they were found.
#[derive(Default)]
struct Below {
    numbers: BTreeMap<Part, usize>,
    nodes: Vec<Part>,
    children: Vec<Vec<usize>>,
}

impl Below {
    fn number(&mut self, node: Part) -> usize {
        let next = self.nodes.len();
        *self.numbers.entry(node).or_insert_with_key(|node| {
            self.nodes.push(node.clone());
            next
        })
    }

    /// Gives the nodes in topological order, and their numbers.
    fn order(&self) -> Result<(Vec<Part>, Vec<usize>)> {
        let mut parents = vec![0_usize; self.nodes.len()];
        for child in self.children.iter().flatten() {
            if let Some(count) = parents.get_mut(*child) {
                *count += 1;
            }
        }
        let is_free = |(number, count): (usize, &usize)| (*count == 0).then_some(number);
        let mut free: BTreeSet<usize> = parents.iter().enumerate().filter_map(is_free).collect();
        let (mut order, mut numbers) = (Vec::with_capacity(self.nodes.len()), Vec::new());
        while let Some(number) = free.pop_first() {
            order.extend(self.nodes.get(number).cloned());
            numbers.push(number);
            for child in self.children.get(number).into_iter().flatten() {
                if let Some(count) = parents.get_mut(*child) {
                    *count -= 1;
                    if *count == 0 {
                        free.insert(*child);
                    }
                }
            }
        }
        if numbers.len() == self.nodes.len() { Ok((order, numbers)) } else { Err(self.cycle(&parents)) }
    }

    /// Tells of a cycle among the nodes that have parents left.
    fn cycle(&self, parents: &[usize]) -> crate::Error {
        let is_left = |number: &usize| parents.get(*number).is_some_and(|count| *count > 0);
        // Whoever is left has a parent that is left: so going up one comes back to where one was.
        let mut parent_of = BTreeMap::new();
        for (parent, children) in self.children.iter().enumerate().filter(|(parent, _)| is_left(parent)) {
            parent_of.extend(children.iter().filter(|child| is_left(child)).map(|child| (*child, parent)));
        }
        let (mut way, mut seen) = (Vec::new(), BTreeSet::new());
        let mut at = parent_of.keys().next().copied();
        while let Some(number) = at.filter(|number| seen.insert(*number)) {
            way.push(number);
            at = parent_of.get(&number).copied();
        }
        way.extend(at);
        let from = way.iter().position(|number| Some(*number) == at).unwrap_or(0);
        let nodes: Vec<Part> =
            way.iter().skip(from).rev().filter_map(|number| self.nodes.get(*number).cloned()).collect();
        cycle(&nodes)
    }

    fn longest(&self, mut weight: impl FnMut(&Part) -> Result<u64>) -> Result<LongestPath> {
        let (nodes, numbers) = self.order()?;
        // By number: the longest way that ends there, and the node before.
        let mut ways: BTreeMap<usize, (u64, Option<usize>)> = BTreeMap::new();
        let mut best: Option<(u64, usize)> = None;
        for (node, number) in nodes.iter().zip(&numbers) {
            let (until, before) = ways.get(number).copied().unwrap_or((0, None));
            let length = until.saturating_add(weight(node)?);
            ways.insert(*number, (length, before));
            if best.is_none_or(|(longest, _)| length > longest) {
                best = Some((length, *number));
            }
            for child in self.children.get(*number).into_iter().flatten() {
                let way = ways.entry(*child).or_default();
                if way.1.is_none() || length > way.0 {
                    *way = (length, Some(*number));
                }
            }
        }
        let mut path = LongestPath { nodes: Vec::new(), length: best.map_or(0, |(length, _)| length) };
        let mut at = best.map(|(_, number)| number);
        while let Some(number) = at {
            path.nodes.extend(self.nodes.get(number).cloned());
            at = ways.get(&number).and_then(|(_, before)| *before);
        }
        path.nodes.reverse();
        Ok(path)
    }
}

/// Says that nodes make a cycle.
fn cycle(nodes: &[Part]) -> crate::Error {
    const SHOWN_MAX: usize = 50;
    let shown: Vec<String> = nodes.iter().take(SHOWN_MAX).map(|node| format!("{node:?}")).collect();
    let more = nodes.len().saturating_sub(SHOWN_MAX);
    let more = if more > 0 { format!(" -> ... ({more} more)") } else { String::new() };
    ErrorKind::DependencyCycle { path: shown.join(" -> ") + &more }.into()
}

impl Graph<CollectionMut<'_, '_>> {
    /// Puts an edge, in place of the one between these nodes if there is one; tells whether there was.
    ///
    /// The draft's fields can be called anything but `:` and `>`.
    ///
    /// # Errors
    /// As [`CollectionMut::put`].
    pub fn connect(
        &mut self,
        label: impl Into<Part>,
        from: impl Into<Part>,
        to: impl Into<Part>,
        draft: impl Into<RowDraft>,
    ) -> Result<bool> {
        let (label, from, to) = (label.into(), from.into(), to.into());
        let key = key_of(&label, &from, &to)?;
        self.rows.put(key, draft.into().field(LABEL, label).field(TO, to))
    }

    /// As [`Graph::connect`], unless edges of this label would lead round in a circle.
    ///
    /// # Errors
    /// [`DependencyCycle`](ErrorKind::DependencyCycle), with the way; as [`Graph::connect`] and [`Graph::path`]. Then no
    /// edge is there that was not before.
    pub fn connect_acyclic(
        &mut self,
        label: impl Into<Part>,
        from: impl Into<Part>,
        to: impl Into<Part>,
        draft: impl Into<RowDraft>,
    ) -> Result<bool> {
        let (label, from, to) = (label.into(), from.into(), to.into());
        if let Some(mut round) = self.path(label.clone(), to.clone(), from.clone())? {
            round.push(to);
            return Err(cycle(&round));
        }
        self.connect(label, from, to, draft)
    }

    /// Removes an edge; tells whether it was there.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn disconnect(
        &mut self,
        label: impl Into<Part>,
        from: impl Into<Part>,
        to: impl Into<Part>,
    ) -> Result<bool> {
        self.rows.remove(key_of(&label.into(), &from.into(), &to.into())?)
    }

    /// Removes all edges of a node, in both directions; tells how many there were.
    ///
    /// # Errors
    /// As [`CollectionMut::remove`].
    pub fn remove_node(&mut self, label: impl Into<Part>, node: impl Into<Part>) -> Result<u64> {
        let (label, node) = (label.into(), node.into());
        let mut removed = 0;
        for direction in [Direction::Down, Direction::Up] {
            for edge in self.edges(label.clone(), node.clone(), direction)? {
                removed += u64::from(self.rows.remove(edge.row.key())?);
            }
        }
        Ok(removed)
    }
}
