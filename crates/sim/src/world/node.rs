//! The interface between the world and a node.

use super::calls::Reply;
use crate::executor::Executor;
use bytes::Bytes;
use kontiki_env::SimMachine;
use kontiki_env::rng::Rng;
use std::time::Duration;

/// Names a node: the store id.
pub type NodeId = u64;

/// A node in the world: a machine that may run a process. The world uses these calls only, all from one thread.
pub trait SimNode {
    /// Starts the process on the machine's disk. Its futures belong in `Group(node id)` of the executor. An error is a
    /// failed test, unless the power went off meanwhile.
    fn start(&mut self, executor: &Executor) -> Result<(), String>;

    /// Drops the process, if one runs, without a shutdown: the power is already off. Machine and disk stay.
    fn stop(&mut self);

    /// The machine. Its disk and clock never change; its tasks are those of the present process.
    fn machine(&self) -> &SimMachine;

    /// A message from another node has arrived. Only while the process runs.
    fn deliver(&mut self, from: NodeId, bytes: Bytes);

    /// A client's request has arrived. Only while the process runs.
    fn request(&mut self, bytes: Bytes, reply: Reply);

    /// Reads the clocks of the machine: the following step uses these times.
    fn look_at_clocks(&mut self) {}

    /// Whether a background job of this name is slow (`Settings::slow_job_us`); others take `background_us`.
    fn is_slow(_job: &str) -> bool {
        false
    }

    /// Sets how long each apply takes; `None`: as fast as the node can.
    fn slow_applies(&mut self, _delay: Option<Duration>) {}

    /// Transfers a leadership of this node, chosen by `rng`; false if it leads nothing.
    fn transfer_leadership(&mut self, _rng: &mut Rng) -> bool {
        false
    }

    /// The process is about to end: what this node leads is transferred.
    fn stop_leading(&mut self) {}

    /// Splits a region that this node leads, chosen by `rng`; false if there is none.
    fn split_region(&mut self, _rng: &mut Rng) -> bool {
        false
    }

    /// Merges a region that this node leads into a neighbour, chosen by `rng`; false if there is none.
    fn merge_region(&mut self, _rng: &mut Rng) -> bool {
        false
    }

    /// Changes the replicas of a region that this node leads, chosen by `rng`; false if there is none, or no change.
    fn change_members(&mut self, _rng: &mut Rng) -> bool {
        false
    }

    /// Whether the nemesis may prefer this node because it leads a region. Only while the process runs.
    fn is_leading(&self) -> bool {
        false
    }

    /// Whether a step has work (besides the passing of time). Only while the process runs.
    fn wants_step(&self) -> bool;

    /// Does the pending work; returns messages to other nodes. Also called once per tick. An error means that the
    /// process has stopped: the world crashes it, and unless the power went off, the test has failed.
    fn step(&mut self) -> Result<Vec<(NodeId, Bytes)>, String>;
}
