//! Layers on larder: what is built of its transactions, collections, claims and assets, and of nothing else.
//!
//! - [`queue`]: a message queue, with leases, retries, dead letters and back-pressure.
//! - [`remember`]: a cache of computations, with single flight and eviction.
//! - [`tasks`]: tasks that wait for each other: batches, rules, propagation, cancellation, retries, counters.
//! - [`runs`]: what pipelines make, and from what; barriers, gates, approvals, routes, schedules.
//! - [`outbox`]: effects that are to be carried out because of what was committed, once under an idempotency key.
//! - [`once`]: decisions that are made once; [`rate`]: so many in a window of time.
//!
//! An operation of a layer takes a transaction of the caller's, so that taking a message, storing its result and counting it
//! are one commit:
//!
//! ```
//! use larder::Options;
//! use larder_layers::queue::{Message, QueueError, QueueSettings, Queues};
//!
//! let larder = Options::new().open_in_memory()?;
//! let ana = larder.session("ana")?;
//! let orders = Queues::at("queues")?.queue("orders")?;
//! ana.try_write(|txn| orders.create(txn, &QueueSettings::new()))?;
//! ana.try_write(|txn| orders.enqueue(txn, Message::new("two soups")))?;
//!
//! ana.try_write(|txn| -> Result<(), QueueError> {
//!     if let Some(order) = orders.dequeue(txn)? {
//!         txn.put("kitchen/1.txt", order.payload().clone())?;
//!         orders.ack(txn, order.token())?;
//!     }
//!     Ok(())
//! })?;
//! assert_eq!(ana.read(|view| Ok(orders.stats(view)))??.acked, 1);
//! # Ok::<(), larder_layers::queue::QueueError>(())
//! ```
//!
//! A layer has no rights of its own: its operations are allowed to those who may do what they do, at the keys where they do
//! it.

pub mod once;
pub mod outbox;
mod place;
pub mod queue;
pub mod rate;
pub mod remember;
pub mod runs;
mod state;
pub mod tasks;

/// The code of the guide is run with the tests.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/write-a-layer.md")]
mod guide {}
