//! What is found of queues and of a cache.

use larder::ReadTxn;
use larder_layers::queue::{Queue, QueueStats};
use larder_layers::remember::{CacheLimits, Namespace, Parts};

use super::Fallible;
use super::model::{Found, Letter, QUEUES, STATES};

/// What a message came to.
pub(super) fn bytes_of(message: u64) -> Vec<u8> {
    vec![b'r'; message as usize % 50]
}

/// What it is remembered by.
pub(super) fn result_of(message: u64) -> Parts {
    Parts::new().with("message", i64::try_from(message).unwrap_or(0))
}

/// Looks at everything that there is in the queues.
pub(super) fn look(queues: &[Queue; QUEUES], view: &ReadTxn) -> Fallible<[Found; QUEUES]> {
    let mut all = Vec::with_capacity(QUEUES);
    for queue in queues {
        let mut letters = [const { Vec::new() }; STATES.len()];
        for (letters, state) in letters.iter_mut().zip(STATES) {
            for envelope in queue.peek(view, state, 10_000)? {
                letters.push(Letter::of(&envelope)?);
            }
        }
        let stats: QueueStats = queue.stats(view)?;
        all.push(Found { letters, stats, settings: queue.settings(view)? });
    }
    all.try_into().map_err(|_| "not as many queues as there are".into())
}

/// Gives the numbers of the messages whose results are there: as many entries as values, of the same bytes.
pub(super) fn remembered(results: &Namespace, view: &ReadTxn) -> Fallible<Vec<u64>> {
    let total = results.total(view)?;
    let entries = results.explain(view, CacheLimits::new().eviction, 10_000)?;
    let (mut messages, mut bytes) = (Vec::new(), 0);
    for entry in entries {
        let record = view.record(&entry.key).map_err(|error| format!("an entry without a value: {error}"))?;
        bytes += i128::from(record.payload().length());
        let encoded = entry.parts.encoded_bytes();
        let parts = larder::format::Labelled::decode(&encoded).map_err(|error| error.to_string())?;
        match parts.get("message") {
            Some(larder::Part::Integer(message)) => {
                let message = u64::try_from(message).unwrap_or(0);
                if view.get(&entry.key)?.bytes()? != bytes_of(message) {
                    return Err(format!("what message {message} came to is not what was stored").into());
                }
                messages.push(message);
            }
            other => return Err(format!("a result of {other:?}").into()),
        }
    }
    let values = match view.list("results/n/values") {
        Ok(values) => values.len(),
        Err(_) => 0,
    };
    if (total.count, total.sum, values) != (messages.len() as u64, bytes, messages.len()) {
        let told = format!("{} entries of {bytes} bytes and {values} values", messages.len());
        return Err(format!("{told}, where the cache says {total:?}").into());
    }
    Ok(messages)
}
