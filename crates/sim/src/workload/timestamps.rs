//! Clients of placement: timestamps, ids, and the safe point of garbage collection.

use super::{Connection, Direct, Records};
use crate::check::timestamps::Grant;
use crate::world::NodeId;
use kontiki_env::rng::Rng;
use kontiki_proto::calls::{AllocId, UpdateGcSafePoint};
use kontiki_proto::pdpb::{AllocIdRequest, UpdateGcSafePointRequest};
use std::time::Duration;

/// A client of placement, which any node answers.
pub struct TimestampClient {
    /// Its connection.
    pub connection: Connection,
    /// The nodes that it asks, one of them each time.
    pub nodes: Vec<NodeId>,
    /// Whether it gives up a request soon.
    pub is_hasty: bool,
    /// Longest wait between two requests, milliseconds.
    pub pause_ms_max: u64,
    /// Where its results are recorded.
    pub records: Records,
    /// Its random generator.
    pub rng: Rng,
}

impl TimestampClient {
    /// Sends requests until it is stopped.
    pub async fn work(mut self) {
        let executor = self.connection.executor().clone();
        let mut newest = 0;
        while !self.records.stop.get() {
            if self.request(&mut newest).await.is_some() {
                self.records.answered.set(self.records.answered.get() + 1);
            }
            executor.sleep(Duration::from_micros(1 + self.rng.below(self.pause_ms_max * 1_000))).await;
        }
        self.records.running.set(self.records.running.get() - 1);
    }

    /// One request; `None` if it is not answered. `newest` is the newest timestamp so far.
    async fn request(&mut self, newest: &mut u64) -> Option<()> {
        let node = *self.rng.pick(&self.nodes).expect("a client knows a node");
        let direct = Direct::new(self.connection.clone(), node);
        let direct = if self.is_hasty { direct.hasty() } else { direct };
        let count = 1 + self.rng.below(20) as u32;
        let client = self.connection.client();
        let invoked = self.records.history.lock().event();
        let completed = || self.records.history.lock().event();
        match self.rng.below(10) {
            0 => {
                let reply = direct.ask::<AllocId>(AllocIdRequest { count, ..Default::default() }).await.ok()?;
                let (first, count) = (reply.id + 1 - u64::from(reply.count), u64::from(reply.count));
                let grant = Grant { client, invoked, completed: completed(), first, count };
                self.records.ids.borrow_mut().push(grant);
            }
            // A safe point in the future is refused; one that is older than the present one changes nothing.
            1 => {
                let safe_point = self.rng.below(*newest + 1);
                let request = UpdateGcSafePointRequest { safe_point, ..Default::default() };
                let first = direct.ask::<UpdateGcSafePoint>(request).await.ok()?.new_safe_point;
                let grant = Grant { client, invoked, completed: completed(), first, count: 1 };
                self.records.safe_points.borrow_mut().push(grant);
            }
            _ => *newest = direct.timestamps(count).await?,
        }
        Some(())
    }
}
