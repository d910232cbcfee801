//! What the world needs of a node, and what a node gets of the world.

use super::calls::Reply;
use crate::executor::Executor;
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::time::Duration;

/// Names a node: the store id.
pub type NodeId = u64;

/// A node as the world sees it: a machine, and on it at times a process. The world moves it by these calls only, all
/// from one thread.
pub trait SimNode {
    /// Starts the process on what the machine's disk holds. Its futures belong in `Group(node id)` of the executor.
    /// An error is a failed test, unless the power went off meanwhile.
    fn start(&mut self, executor: &Executor) -> Result<(), String>;

    /// Drops the process, if one runs, without any goodbye: the power is off already. Machine and disk stay.
    fn stop(&mut self);

    /// The machine. Its disk and clock are the same all along; its tasks are those of the present process.
    fn machine(&self) -> &SimMachine;

    /// A message from another node has arrived. Only while the process runs.
    fn deliver(&mut self, from: NodeId, bytes: Bytes);

    /// A client's request has arrived. Only while the process runs.
    fn request(&mut self, bytes: Bytes, reply: Reply);

    /// Notes what the clocks of the machine say: the step that follows takes it for the present.
    fn look_at_clocks(&mut self) {}

    /// Whether a background job of this name takes long (`Knobs::slow_job_us`) where others take `background_us`.
    fn is_slow(_job: &str) -> bool {
        false
    }

    /// From now on each apply takes so long; `None`: as fast as the node can.
    fn slow_applies(&mut self, _delay: Option<Duration>) {}

    /// Hands some leadership of this node over, as `rng` likes; false if it leads nothing.
    fn transfer_leadership(&mut self, _rng: &mut Rng) -> bool {
        false
    }

    /// Whether the nemesis may prefer this node: it leads something. Only while the process runs.
    fn is_leading(&self) -> bool {
        false
    }

    /// Whether a step has something to do (besides the passing of time). Only while the process runs.
    fn wants_step(&self) -> bool;

    /// Does what there is to do; returns messages to other nodes. Also called once a tick. An error says that the
    /// process has given up: the world crashes it, and unless the power went off, the test has failed.
    fn step(&mut self) -> Result<Vec<(NodeId, Bytes)>, String>;
}
