//! The machine: calls, ticks and results of writes in; replies and writes out.

use crate::call_id::CallId;
use crate::leader::Leader;
use crate::oracle::PHYSICAL_MS_MAX;
use crate::state;
use crate::{Config, Now, Outcome, Refusal, RefusalCode, Request, Response, Result};
use kontiki_engine::{View, WriteBatch};

/// Names a write; chosen by the machine, never twice within a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WriteId(pub u64);

/// What the driver has to do.
#[derive(Debug)]
pub enum Output {
    /// Answer a call.
    Reply {
        /// The call.
        id: CallId,
        /// The answer.
        response: Response,
    },
    /// Propose a batch to the placement group, after any earlier one, and report the outcome with
    /// [`Placement::written`].
    Write {
        /// Names it in the report.
        id: WriteId,
        /// Puts in [`crate::FAMILY`].
        batch: WriteBatch,
    },
}

/// Placement at one node.
///
/// The driver calls [`lead`](Placement::lead) when its peer of the placement group has become leader *and* has applied
/// an entry of its own term: only then the view contains everything that earlier leaders wrote. It calls
/// [`step_down`](Placement::step_down) when the peer stops leading. In between it passes on calls, ticks and results of
/// writes, and after each of these performs what [`poll`](Placement::poll) returns.
///
/// Every call is answered exactly once: at once, after the write it waits for, or when the node steps down. A call may
/// be made at any time; a node that does not lead refuses. Before passing on a call the driver has checked the lease:
/// otherwise a deposed leader that does not know of its deposition would hand out timestamps below its successor's. A
/// call that waited needs no second check, since it overlaps every call that its successor could have answered
/// meanwhile.
#[derive(Debug)]
pub struct Placement {
    config: Config,
    role: Role,
    outputs: Vec<Output>,
    write_in_flight: Option<WriteId>,
    writes_count: u64,
}

#[derive(Debug)]
enum Role {
    Follower,
    /// Leads a cluster that has no state: refuses everything until it is led again with a state.
    Unbootstrapped,
    Leader(Box<Leader>),
}

impl Placement {
    /// A node that does not lead.
    pub fn new(config: Config) -> Placement {
        Placement { config, role: Role::Follower, outputs: Vec::new(), write_in_flight: None, writes_count: 0 }
    }

    /// From the next leadership on nothing is handed out below these; see [`Config::timestamp_min_ms`].
    pub fn begin_above(&mut self, timestamp_ms: u64, id: u64) {
        self.config.timestamp_min_ms = self.config.timestamp_min_ms.max(timestamp_ms.min(PHYSICAL_MS_MAX));
        self.config.id_min = self.config.id_min.max(id);
    }

    /// Starts to lead from the state in `state`. On an error the node does not lead; the driver transfers the
    /// leadership or stops, since another replica may be intact. A node that already leads starts again: every waiting
    /// call is refused as if the node had stepped down.
    pub fn lead(&mut self, state: &dyn View, now: Now) -> Result<()> {
        self.step_down();
        let loaded = state::load(state)?;
        self.role = if loaded.bootstrapped {
            Role::Leader(Box::new(Leader::new(&self.config, loaded, now)))
        } else {
            Role::Unbootstrapped
        };
        self.plan(now);
        Ok(())
    }

    /// Stops leading: every call that waits is refused with [`RefusalCode::NotLeader`].
    pub fn step_down(&mut self) {
        // The outcome of a write in flight no longer matters: the next leader reads what took effect.
        self.write_in_flight = None;
        if let Role::Leader(leader) = std::mem::replace(&mut self.role, Role::Follower) {
            for id in leader.into_waiting() {
                self.outputs.push(Output::Reply { id, response: Refusal::not_leader().into() });
            }
        }
    }

    /// Whether it leads.
    pub fn is_leader(&self) -> bool {
        !matches!(self.role, Role::Follower)
    }

    /// Takes a call. The driver has checked the lease.
    pub fn call(&mut self, id: CallId, request: Request, now: Now) {
        let answer = match (&mut self.role, request.command) {
            (Role::Follower, _) => Some(Err(Refusal::not_leader())),
            (Role::Unbootstrapped, _) => {
                Some(Err(Refusal::new(RefusalCode::NotBootstrapped, "the cluster is not bootstrapped")))
            }
            (Role::Leader(_), None) => {
                let what = "the placement leader's version does not know this request; upgrade that node";
                Some(Err(Refusal::new(RefusalCode::Unsupported, what)))
            }
            (Role::Leader(leader), Some(command)) => leader.call(id, command, now),
        };
        if let Some(answer) = answer {
            self.reply(id, answer);
        }
        self.plan(now);
    }

    /// A write ended: `ok` if it was applied, `false` if it was refused or its outcome is unknown. A report on a write
    /// of an earlier leadership is ignored.
    pub fn written(&mut self, write: WriteId, ok: bool, now: Now) {
        if self.write_in_flight != Some(write) {
            return;
        }
        self.write_in_flight = None;
        let Role::Leader(leader) = &mut self.role else { return };
        for (id, answer) in leader.written(ok, now) {
            self.reply(id, answer);
        }
        self.plan(now);
    }

    /// Time has passed; a few calls per second are enough.
    pub fn tick(&mut self, now: Now) {
        if let Role::Leader(leader) = &mut self.role {
            leader.tick();
        }
        self.plan(now);
    }

    /// What the driver has to do, in order.
    pub fn poll(&mut self) -> Vec<Output> {
        std::mem::take(&mut self.outputs)
    }

    fn reply(&mut self, id: CallId, answer: std::result::Result<Outcome, Refusal>) {
        let response = answer.map_or_else(Response::from, Response::from);
        self.outputs.push(Output::Reply { id, response });
    }

    fn plan(&mut self, now: Now) {
        let Role::Leader(leader) = &mut self.role else { return };
        if let Some(batch) = leader.plan(now) {
            assert!(self.write_in_flight.is_none(), "one write at a time");
            self.writes_count += 1;
            let id = WriteId(self.writes_count);
            self.write_in_flight = Some(id);
            self.outputs.push(Output::Write { id, batch });
        }
    }
}

#[cfg(test)]
#[path = "machine_test.rs"]
mod tests;
