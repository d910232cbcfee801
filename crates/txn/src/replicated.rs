//! What transactions need from the layer below.

use crate::TimeStamp;
use kontiki_engine::{View, WriteBatch};
use std::fmt;
use std::future::Future;

/// A node's uninterrupted leadership of a region, while the region has one range.
///
/// When one begins, reads may have been served elsewhere of which this node knows nothing: by another leader of the
/// region, or by the leader of a region that was merged into it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leadership {
    /// The region.
    pub region: u64,
    /// The term in which this node leads it.
    pub term: u64,
    /// The version of its range, which splits and merges raise.
    pub version: u64,
}

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

    /// A view that holds everything acknowledged before the call (linearizable). The first view binds the context to
    /// the present leadership: later views and replications with it are refused in any other.
    fn view(&self, context: &Self::Context) -> impl Future<Output = Result<Self::View, Self::Error>> + Send;

    /// The leadership to which the context is bound. When it began, no node could serve reads of the region in an
    /// earlier one any more.
    fn leadership(&self, context: &Self::Context) -> Option<Leadership>;

    /// A timestamp that the oracle hands out after the call.
    fn timestamp(&self) -> impl Future<Output = Result<TimeStamp, Self::Error>> + Send;

    /// The same for a read at `ts`. A replica that does not lead reports the timestamp to its leader, which takes it
    /// into account as if it served the read ([`crate::ConcurrencyManager`]).
    fn view_at(
        &self,
        context: &Self::Context,
        ts: TimeStamp,
    ) -> impl Future<Output = Result<Self::View, Self::Error>> + Send {
        let _ = ts; // This store has one replica.
        self.view(context)
    }

    /// Versions that no read at or above this timestamp needs may be missing in the view ([`crate::GcPass`]). A write
    /// that depends on the view is refused if its region's safe point was raised since.
    fn gc_safe_point(&self, view: &Self::View) -> TimeStamp {
        let _ = view; // Nothing is ever dropped.
        TimeStamp::ZERO
    }

    /// Makes the batch durable and visible, all or nothing. Resolves only when later views either hold the batch or
    /// never will: with an unknown outcome, not before the region has applied past the proposal or this node has
    /// lost leadership. The scheduler keeps latches until then.
    fn replicate(
        &self,
        context: &Self::Context,
        batch: WriteBatch,
    ) -> impl Future<Output = Result<(), Self::Error>> + Send;
}
