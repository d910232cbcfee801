//! The change feed: the batches of the log, in order, for the subscribers of a database.
//!
//! - `changes`: a subscription, which reads the log record by record, on disk and up to its live end;
//! - the subscribers, and how they are woken, are in `db/shared/subscribers.rs`.
//!
//! A subscriber costs a writer one load of a counter. It pins nothing: how much of the log is retained for subscribers
//! is an option of the database ([`crate::Options::feed_retention_bytes`]), and a subscriber that falls further behind
//! gets an error. docs/internals/feed.md has the reasons.

mod changes;

pub use changes::{Change, Changes, ChangesOptions, IngestedRange};
