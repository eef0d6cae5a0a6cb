//! How many tasks match: without counting, and without a look at those that do not.
//!
//! What a matcher asks for, a status, a kind and the names of some fields, is a shape; it is given a number when it is first
//! used. A task is a member of the group of a shape, and of the values that it has in the shape's fields, as long as it has
//! the shape's kind and status. Members are rows, and how many a group has is an aggregate of them, which `verify` recounts.
//!
//! ```text
//! shape:  ["s", kind, status, [fields]] -> "i": its number
//! member: [task, number of the shape]   -> "g": [number of the shape, values], "t": the task, "r": how many items it has left
//! ```

use std::collections::BTreeMap;

use larder::{
    AggregateDefinition, CollectionDefinition, CollectionMut, IndexDefinition, Part, ReadTxn, RowDraft,
    RowRange, Rows, WriteTxn,
};
use serde_json::{Map, Value};

use super::task::id_of;
use super::{Matcher, Result, Task, TaskBody, TaskId, TaskStatus, Tasks};
use crate::place::{found, open, remove_all};

const SHAPE: &str = "s";
const GROUP: &str = "group";
/// Values that take more bytes are told apart by their digest, of 256 bits.
const VALUE_LENGTH_MAX: usize = 200;

pub(super) fn definition() -> CollectionDefinition {
    CollectionDefinition::new()
        .index(IndexDefinition::new(GROUP).by("g").by_descending("t"))
        .aggregate(AggregateDefinition::new(GROUP).group_by("g").sum("r"))
}

/// Shapes that matchers have, of the kinds that were asked for.
#[derive(Debug, Default)]
pub(super) struct Shapes(BTreeMap<String, Vec<(u64, Matcher)>>);

/// How many tasks a group has, and how many items they have left.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Members {
    pub(super) count: u64,
    pub(super) remaining: i128,
}

fn value_part(value: &Value) -> Part {
    let part = match value {
        Value::Null => Part::Nil,
        Value::Bool(is) => Part::Bool(*is),
        Value::Number(number) => match (number.as_i64(), number.as_u64(), number.as_f64()) {
            (Some(number), ..) => number.into(),
            (_, Some(number), _) => number.into(),
            (.., float) => float.map_or(Part::Nil, Part::Float),
        },
        Value::String(text) => text.as_str().into(),
        Value::Array(_) | Value::Object(_) => Part::Symbol(value.to_string()),
    };
    match part {
        Part::String(text) | Part::Symbol(text) if text.len() > VALUE_LENGTH_MAX => {
            Part::Bytes(blake3::hash(value.to_string().as_bytes()).as_bytes().to_vec())
        }
        part => part,
    }
}

/// Gives the group of a shape that metadata belong to, or the first field that is missing.
fn group_of(
    shape: u64,
    matcher: &Matcher,
    metadata: &Map<String, Value>,
) -> std::result::Result<Part, String> {
    let value = |field: &String| metadata.get(field).map(value_part).ok_or_else(|| field.clone());
    let values: std::result::Result<Vec<Part>, String> = matcher.fields.iter().map(value).collect();
    Ok(Part::List([vec![shape.into()], values?].concat()))
}

fn shape_key(matcher: &Matcher) -> Vec<Part> {
    let fields = matcher.fields.iter().map(|field| Part::from(field.as_str())).collect();
    vec![SHAPE.into(), matcher.kind.as_str().into(), matcher.status.number().into(), Part::List(fields)]
}

/// A matcher as its shape is kept: the order of fields does not matter.
fn normal(matcher: &Matcher) -> Matcher {
    let mut matcher = matcher.clone();
    matcher.fields.sort();
    matcher
}

fn shape_of(row: &larder::Row) -> Option<(u64, Matcher)> {
    let [_, Part::String(kind), Part::Integer(status), Part::List(fields)] = row.key().parts() else {
        return None;
    };
    let status = TaskStatus::of_number(i64::try_from(*status).ok())?;
    let name = |part: &Part| match part {
        Part::String(name) => Some(name.clone()),
        _ => None,
    };
    let fields = fields.iter().map(name).collect::<Option<_>>()?;
    Some((u64::try_from(row.integer("i")?).ok()?, Matcher { status, kind: kind.clone(), fields }))
}

impl Shapes {
    /// Reads the shapes of a kind, unless they are known.
    fn of_kind(&mut self, rows: &mut impl Rows, kind: &str) -> Result<()> {
        if !self.0.contains_key(kind) {
            let rows = rows.all(None, &RowRange::all().with(SHAPE).with(kind))?;
            self.0.insert(kind.to_owned(), rows.iter().filter_map(shape_of).collect());
        }
        Ok(())
    }

    /// Reads the shapes of a kind, unless they are known; tells whether there are any.
    pub(super) fn read(&mut self, tasks: &Tasks, txn: &mut WriteTxn<'_>, kind: &str) -> Result<bool> {
        if !self.0.contains_key(kind) {
            match found(txn.collection(&tasks.groups))? {
                Some(mut rows) => self.of_kind(&mut rows, kind)?,
                None => drop(self.0.insert(kind.to_owned(), Vec::new())),
            }
        }
        Ok(self.known(kind).next().is_some())
    }

    fn known(&self, kind: &str) -> impl Iterator<Item = &(u64, Matcher)> {
        self.0.get(kind).into_iter().flatten()
    }

    fn number(&self, matcher: &Matcher) -> Option<u64> {
        self.known(&matcher.kind).find(|(_, known)| known == matcher).map(|(number, _)| *number)
    }

    /// Numbers the shape of a matcher, if it is new; then all tasks that have it become members, in this transaction.
    pub(super) fn add(&mut self, tasks: &Tasks, txn: &mut WriteTxn<'_>, matcher: &Matcher) -> Result<()> {
        let matcher = normal(matcher);
        self.read(tasks, txn, &matcher.kind)?;
        if self.number(&matcher).is_some() {
            return Ok(());
        }
        let number = txn.unique_number();
        open(txn, &tasks.groups, definition)?
            .put(shape_key(&matcher), RowDraft::default().field("i", number))?;
        // Whoever was at work when he was paused counts as one who is.
        let asked = match matcher.status {
            TaskStatus::Running => vec![TaskStatus::Claimed, TaskStatus::Running, TaskStatus::Paused],
            status => vec![status],
        };
        for status in asked {
            let range = RowRange::all().with(status.number()).with(matcher.kind.as_str());
            for row in Rows::all(&mut txn.collection(&tasks.rows)?, Some("state"), &range)? {
                let task = Task::of(&row)?;
                if task.counts_as(matcher.status) {
                    let body = tasks.body_in(txn, task.id)?;
                    put_member(&mut txn.collection(&tasks.groups)?, (number, &matcher), &task, &body)?;
                }
            }
        }
        self.0.entry(matcher.kind.clone()).or_default().push((number, matcher));
        Ok(())
    }

    /// Makes a task, which was in another state before or was not there, a member of what it is one of now.
    pub(super) fn change(
        &self,
        rows: &mut CollectionMut<'_, '_>,
        before: Option<&Task>,
        now: Option<(&Task, &TaskBody)>,
    ) -> Result<()> {
        let Some(kind) = now.map(|(task, _)| &task.kind).or(before.map(|task| &task.kind)) else {
            return Ok(());
        };
        for (number, matcher) in self.known(kind) {
            let was = before.is_some_and(|task| task.counts_as(matcher.status));
            let is = now.filter(|(task, _)| task.counts_as(matcher.status));
            match (was, is) {
                (_, Some((task, body))) if !was || before.map(Task::remaining) != Some(task.remaining()) => {
                    put_member(rows, (*number, matcher), task, body)?;
                }
                (true, None) => {
                    let id = before.or(now.map(|(task, _)| task)).map_or(0, |task| task.id);
                    rows.remove((id, *number))?;
                }
                _ => {}
            }
        }
        Ok(())
    }

    /// Gives the group that a matcher means for somebody with these metadata, or the field that they lack.
    pub(super) fn group(
        &self,
        matcher: &Matcher,
        metadata: &Map<String, Value>,
    ) -> Option<std::result::Result<Part, String>> {
        let matcher = normal(matcher);
        Some(group_of(self.number(&matcher)?, &matcher, metadata))
    }
}

fn put_member(
    rows: &mut CollectionMut<'_, '_>,
    (number, matcher): (u64, &Matcher),
    task: &Task,
    body: &TaskBody,
) -> Result<()> {
    // Whoever lacks a field belongs to no group.
    if let Ok(group) = group_of(number, matcher, &body.metadata) {
        let draft = RowDraft::default().field("g", group).field("t", task.id).field("r", task.remaining());
        rows.put((task.id, number), draft)?;
    }
    Ok(())
}

/// Tells how many members a group has.
pub(super) fn members(rows: &mut impl Rows, group: &Part) -> Result<Members> {
    let aggregate = rows.aggregate(GROUP, std::slice::from_ref(group))?;
    Ok(Members { count: aggregate.count, remaining: aggregate.sum })
}

/// Gives the member of a group that was created last.
pub(super) fn last_member(rows: &mut impl Rows, group: &Part) -> Result<Option<TaskId>> {
    let members = rows.find(GROUP, &RowRange::all().with(group.clone()).limit(1))?.rows;
    Ok(members.first().and_then(|row| id_of(row.key().parts().first()?)))
}

/// Removes what is known of a task.
pub(super) fn forget(rows: &mut CollectionMut<'_, '_>, task: TaskId) -> Result<()> {
    let members = Rows::all(rows, None, &RowRange::all().with(task))?;
    remove_all(rows, &members)?;
    Ok(())
}

/// Gives shapes, and how many tasks match, for a view.
pub(super) fn view_group(
    tasks: &Tasks,
    view: &ReadTxn,
    matcher: &Matcher,
    metadata: &Map<String, Value>,
) -> Result<Option<std::result::Result<Members, String>>> {
    let Some(mut rows) = found(view.collection(&tasks.groups))? else { return Ok(None) };
    let mut shapes = Shapes::default();
    shapes.of_kind(&mut rows, &matcher.kind)?;
    match shapes.group(matcher, metadata) {
        None => Ok(None),
        Some(Err(field)) => Ok(Some(Err(field))),
        Some(Ok(group)) => members(&mut rows, &group).map(|members| Some(Ok(members))),
    }
}

/// Gives the values that metadata have in the fields of a matcher; nothing if they lack one.
pub(super) fn values_of(matcher: &Matcher, metadata: &Map<String, Value>) -> Option<Part> {
    group_of(0, matcher, metadata).ok()
}
