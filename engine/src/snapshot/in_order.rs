//! Work on several threads whose outcomes are taken in the order in which it was given.

use std::collections::VecDeque;

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::error::{ErrorKind, Result};

/// How many bytes are on their way at most, if it is more than one item.
const BYTES_ON_THEIR_WAY: u64 = 16 << 20;

/// Takes items from `produce`, hands each to a worker, and gives what came of it to `consume`, in order. Both run on the
/// thread that called; there are at most two items a worker on their way, and fewer where `length` says that they are large.
/// Ends at the first error.
pub(super) fn in_order<T: Send, R: Send, W: FnMut(T) -> Result<R>>(
    threads: usize,
    mut produce: impl FnMut() -> Result<Option<T>>,
    length: impl Fn(&T) -> u64,
    worker: impl Fn() -> Result<W> + Sync,
    mut consume: impl FnMut(R) -> Result<()>,
) -> Result<()> {
    let threads = threads.max(1);
    std::thread::scope(|scope| {
        let (jobs, todo) = bounded::<(T, Sender<Result<R>>)>(threads);
        for _ in 0..threads {
            let (todo, worker) = (todo.clone(), &worker);
            scope.spawn(move || {
                let mut worker = worker();
                for (item, done) in todo {
                    let outcome = match &mut worker {
                        Ok(work) => work(item),
                        Err(error) => Err(error.clone()),
                    };
                    // Nobody waits for it any more after an error.
                    let _ = done.send(outcome);
                }
            });
        }
        drop(todo);
        let mut waiting: VecDeque<(Receiver<Result<R>>, u64)> = VecDeque::new();
        let mut on_their_way = 0;
        let mut take = |done: Receiver<Result<R>>| {
            consume(done.recv().map_err(|_| ErrorKind::Aborted { what: "a worker gave up".to_owned() })??)
        };
        while let Some(item) = produce()? {
            let bytes = length(&item);
            while (waiting.len() >= 2 * threads || on_their_way + bytes > BYTES_ON_THEIR_WAY)
                && let Some((first, bytes)) = waiting.pop_front()
            {
                on_their_way -= bytes;
                take(first)?;
            }
            let (outcome, done) = bounded(1);
            if jobs.send((item, outcome)).is_err() {
                return Err(ErrorKind::Aborted { what: "the workers gave up".to_owned() }.into());
            }
            waiting.push_back((done, bytes));
            on_their_way += bytes;
        }
        drop(jobs);
        waiting.into_iter().try_for_each(|(done, _)| take(done))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn squares(threads: usize, upto: u64, fail_at: u64) -> (Vec<u64>, Result<()>) {
        let (mut next, mut out) = (0, Vec::new());
        let done = in_order(
            threads,
            || {
                next += 1;
                Ok((next <= upto).then_some(next))
            },
            // Every hundredth is a large one.
            |number| if number % 100 == 0 { 1 << 30 } else { 1 },
            || {
                Ok(|number: u64| {
                    if number == fail_at {
                        return Err(ErrorKind::Aborted { what: "on purpose".to_owned() }.into());
                    }
                    Ok(number * number)
                })
            },
            |square| {
                out.push(square);
                Ok(())
            },
        );
        (out, done)
    }

    #[test]
    fn outcomes_come_in_order_and_an_error_ends_it() {
        let expected: Vec<u64> = (1..=1_000).map(|number| number * number).collect();
        for threads in [0, 1, 2, 7] {
            let (out, done) = squares(threads, 1_000, 0);
            assert!(done.is_ok());
            assert_eq!(out, expected);
            let (out, done) = squares(threads, 1_000, 500);
            assert!(done.is_err());
            assert_eq!(out, expected[..499]);
        }
    }
}
