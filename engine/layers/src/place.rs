//! Where a layer keeps what it keeps: a collection that is made when it is first used, and things that may not be there.

use std::time::Duration;

use larder::{
    CollectionDefinition, CollectionMut, Defined, ErrorKind, Key, Micros, Part, Result, Row, RowPage,
    RowRange, WriteTxn,
};

/// Opens a collection; makes it where there is none.
pub(crate) fn open<'t, 's>(
    txn: &'t mut WriteTxn<'s>,
    key: &Key,
    definition: fn() -> CollectionDefinition,
) -> Result<CollectionMut<'t, 's>> {
    if found(txn.collection(key))?.is_none() {
        let _: Defined = txn.define_collection(key, &definition())?;
    }
    txn.collection(key)
}

/// Gives the time that is so much later.
pub(crate) fn after(now: Micros, time: Duration) -> Micros {
    now.saturating_add(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

/// Gives the beginning of a text, of so many bytes at most.
pub(crate) fn cut(text: &str, length_max: usize) -> &str {
    let end = text.char_indices().map(|(at, character)| at + character.len_utf8());
    let end = end.take_while(|end| *end <= length_max).last().unwrap_or(0);
    text.get(..end).unwrap_or_default()
}

/// Gives what was found; nothing where nothing is.
pub(crate) fn found<T>(result: Result<T>) -> Result<Option<T>> {
    match result {
        Err(error) if matches!(error.kind(), ErrorKind::NotFound) => Ok(None),
        result => result.map(Some),
    }
}

/// Gives a field that holds a number without a sign; 0 where it does not.
pub(crate) fn number<N: TryFrom<i64> + Default>(row: &Row, name: &str) -> N {
    row.integer(name).and_then(|number| N::try_from(number).ok()).unwrap_or_default()
}

/// Tells whether a field is there and true.
pub(crate) fn is_set(row: &Row, name: &str) -> bool {
    row.field(name) == Some(Part::Bool(true))
}

/// Gives a field that holds text; none where it does not.
pub(crate) fn text(row: &Row, name: &str) -> String {
    row.text(name).map(String::from).unwrap_or_default()
}

/// Removes rows that were found; gives how many these were.
pub(crate) fn remove_all(rows: &mut CollectionMut<'_, '_>, found: &[Row]) -> Result<u64> {
    for row in found {
        rows.remove(row.key())?;
    }
    Ok(found.len() as u64)
}

/// How many rows are looked at at a time to find some of them.
const LOOKED_AT_ONCE: usize = 256;

pub(crate) fn page_of(
    rows: &mut CollectionMut<'_, '_>,
    index: Option<&str>,
    range: &RowRange,
) -> Result<RowPage> {
    match index {
        Some(index) => rows.find(index, range),
        None => rows.page(range),
    }
}

/// Tells whether a row of a range, by an index or by the keys, is what is looked for; looks no further than that.
pub(crate) fn has_any(
    rows: &mut CollectionMut<'_, '_>,
    index: Option<&str>,
    range: RowRange,
    is: impl Fn(&Row) -> bool,
) -> Result<bool> {
    let mut range = range.limit(LOOKED_AT_ONCE);
    loop {
        let page = page_of(rows, index, &range)?;
        if page.rows.iter().any(&is) {
            return Ok(true);
        }
        let Some(next) = page.next else { return Ok(false) };
        range = range.after(next);
    }
}

/// Removes rows of a range, in the order of an index or of their keys, that may go, which is asked for each; at most `limit`
/// of them. Gives how many these were.
pub(crate) fn remove_where<E: From<larder::Error>>(
    rows: &mut CollectionMut<'_, '_>,
    index: Option<&str>,
    range: RowRange,
    limit: usize,
    mut may_go: impl FnMut(&mut CollectionMut<'_, '_>, &Row) -> std::result::Result<bool, E>,
) -> std::result::Result<usize, E> {
    let (mut removed, mut range) = (0, range.limit(limit.clamp(1, LOOKED_AT_ONCE)));
    while removed < limit {
        let page = page_of(rows, index, &range)?;
        for row in &page.rows {
            if removed < limit && may_go(rows, row)? {
                removed += usize::from(rows.remove(row.key())?);
            }
        }
        let Some(next) = page.next else { break };
        range = range.after(next);
    }
    Ok(removed)
}
