//! Transactions as a user sees them: one after the other in a stepped world, and many at once on threads, whose
//! histories are checked by checkers that know nothing of the implementation.

mod bank;
mod basics;
mod faults;
mod iterators;
mod list_append;
mod locks;
mod retry;
mod savepoints;
mod skew;
mod snapshot_history;
mod submitted;
mod support;
