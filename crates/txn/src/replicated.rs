//! What transactions need from the layer below.

use kontiki_engine::{View, WriteBatch};
use std::fmt;
use std::future::Future;

/// Consistent views of a region and a way to make a batch durable on its replicas.
///
/// Futures need no particular runtime: they are woken through their `Waker`s.
pub trait Replicated: Send + Sync + 'static {
    /// The region, its epoch and the peer: what is checked before reading and writing.
    type Context: Clone + Send + Sync + 'static;
    /// Region errors, storage errors, an undetermined outcome.
    type Error: Send + fmt::Debug + fmt::Display + 'static;
    /// A consistent state.
    type View: View;

    /// A view that holds everything acknowledged before the call (linearizable).
    fn view(&self, context: &Self::Context) -> impl Future<Output = Result<Self::View, Self::Error>> + Send;

    /// Makes the batch durable and visible, all or nothing. Resolves only when later views either hold the batch or
    /// never will: with an unknown outcome, not before the region has applied past the proposal or this node has
    /// lost leadership. The scheduler keeps latches until then.
    fn replicate(
        &self,
        context: &Self::Context,
        batch: WriteBatch,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
