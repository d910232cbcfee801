//! Transactional clients that deviate from a well-behaved one: they die between any two calls of a transaction, between
//! prewrite and commit, or after the primary, are slow with and without heartbeats, do not let readers push their
//! commit, and resolve locks otherwise.
//!
//! The client is the real one. Its connection does this to the calls that pass: of a client that died, nothing passes
//! any more; a slow one's commit waits.

use super::Connection;
use crate::world::NodeId;
use bytes::Bytes;
use kontiki_client::transport::Failure;
use kontiki_env::rng::Rng;
use kontiki_proto::Code;
use kontiki_proto::calls::{
    Call, KvBatchRollback, KvCheckSecondaryLocks, KvCheckTxnStatus, KvCleanup, KvCommit, KvPessimisticLock,
    KvPessimisticRollback, KvPrewrite, KvResolveLock, KvTxnHeartBeat,
};
use kontiki_proto::kvrpcpb::{
    BatchRollbackRequest, CheckSecondaryLocksRequest, CheckTxnStatusRequest, CheckTxnStatusResponse, CleanupRequest,
    CleanupResponse, CommitRequest, CommitResponse, Op, PessimisticLockRequest, PessimisticRollbackRequest,
    PrewriteRequest, ResolveLockRequest, TxnHeartBeatRequest,
};
use parking_lot::Mutex;
use prost::Message;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

/// Time to live of locks: short, so that slow owners are rolled back by others.
pub const LOCK_TTL_MS: u64 = 800;
/// A client that dies anywhere does so within so many calls of a transaction.
const CALLS_MAX: u64 = 8;
/// A put of this value becomes a lock without a value.
pub const LOCK_ONLY: &[u8] = b"lock only";

/// How a client writes, each in percent.
#[derive(Clone, Debug, Default)]
pub struct Behaviour {
    /// It dies after some calls of the transaction, whichever comes next.
    pub dies_anywhere: u64,
    /// It dies between prewrite and commit.
    pub dies_before_commit: u64,
    /// It dies when the primary is committed.
    pub dies_after_primary: u64,
    /// It is slow between prewrite and commit, with or without heartbeats for its lock.
    pub is_slow: u64,
    /// Its locks allow readers to push the minimum commit timestamp.
    pub is_pushable: u64,
    /// It resolves by `Cleanup` instead of `CheckTxnStatus`, or a whole region instead of a key.
    pub resolves_otherwise: u64,
}

impl Behaviour {
    /// Draws behaviour: most clients do not die.
    pub fn draw(rng: &mut Rng) -> Behaviour {
        let mut anywhere = rng.child("dies anywhere");
        let mut sometimes = |max: u64| if rng.chance(1, 2) { rng.below(max) } else { 0 };
        Behaviour {
            dies_anywhere: if anywhere.chance(1, 2) { anywhere.below(25) } else { 0 },
            dies_before_commit: sometimes(20),
            dies_after_primary: sometimes(20),
            is_slow: sometimes(20),
            is_pushable: sometimes(150),
            resolves_otherwise: sometimes(60),
        }
    }
}

/// What one transaction's client does, drawn at its first prewrite.
#[derive(Clone, Default)]
struct Course {
    is_pushable: bool,
    dies_before_commit: bool,
    dies_after_primary: bool,
    is_dead: bool,
    /// Calls until it dies, if it does.
    calls_left: Option<u64>,
    /// Waits before the commit that are left, and whether it sends heartbeats meanwhile.
    waits_left: u64,
    sends_heartbeats: bool,
    /// The commit timestamp that was sent last.
    commit_ts: Option<u64>,
}

/// The behaviour of a client, and its transactions by start timestamp.
pub struct BehaviourState {
    behaviour: Behaviour,
    rng: Rng,
    courses: BTreeMap<u64, Course>,
}

type Shared = Arc<Mutex<BehaviourState>>;

impl BehaviourState {
    /// A client without transactions.
    pub fn new(behaviour: Behaviour, rng: Rng) -> Shared {
        Arc::new(Mutex::new(BehaviourState { behaviour, rng, courses: BTreeMap::new() }))
    }

    /// The commit timestamp of a transaction that was sent to a node last.
    pub fn commit_ts_sent(&self, start_ts: u64) -> Option<u64> {
        self.courses.get(&start_ts)?.commit_ts
    }

    fn does_so(&mut self, percent: u64) -> bool {
        self.rng.chance(percent.min(100), 100)
    }

    fn course(&mut self, start_ts: u64) -> &mut Course {
        if !self.courses.contains_key(&start_ts) {
            let behaviour = self.behaviour.clone();
            let course = Course {
                calls_left: self.does_so(behaviour.dies_anywhere).then(|| self.rng.below(CALLS_MAX)),
                is_pushable: self.does_so(behaviour.is_pushable),
                dies_before_commit: self.does_so(behaviour.dies_before_commit),
                dies_after_primary: self.does_so(behaviour.dies_after_primary),
                waits_left: if self.does_so(behaviour.is_slow) { 1 + self.rng.below(4) } else { 0 },
                sends_heartbeats: self.rng.chance(1, 2),
                ..Course::default()
            };
            self.courses.insert(start_ts, course);
        }
        self.courses.get_mut(&start_ts).expect("it was just inserted")
    }

    /// Whether nothing of a transaction passes any more. Only calls that lock begin one.
    fn has_died(&mut self, path: &str, start_ts: u64) -> bool {
        let begins = [KvPrewrite::PATH, KvPessimisticLock::PATH].contains(&path);
        if !begins && !self.courses.contains_key(&start_ts) {
            return false;
        }
        let course = self.course(start_ts);
        course.is_dead |= course.calls_left == Some(0);
        course.calls_left = course.calls_left.map(|left| left.saturating_sub(1));
        course.is_dead
    }

    /// Sends a call as this client would.
    pub async fn exchange(
        state: &Shared,
        connection: &Connection,
        node: NodeId,
        path: &'static str,
        message: Bytes,
    ) -> Result<Bytes, Failure> {
        if let Some(start_ts) = transaction_of(path, &message)
            && state.lock().has_died(path, start_ts)
        {
            return Err(died());
        }
        match path {
            KvPrewrite::PATH => {
                let request = prewrite(state, read(message));
                connection.exchange(node, path, request.encode_to_vec().into()).await
            }
            KvCommit::PATH => commit(state, connection, node, read(message)).await,
            KvCheckTxnStatus::PATH if otherwise(state) => clean_up(connection, node, read(message)).await,
            KvResolveLock::PATH if otherwise(state) => {
                let request = ResolveLockRequest { keys: Vec::new(), ..read(message) };
                connection.exchange(node, path, request.encode_to_vec().into()).await
            }
            _ => connection.exchange(node, path, message).await,
        }
    }
}

/// The transaction that a call is about: its client's own, or another one.
fn transaction_of(path: &str, message: &Bytes) -> Option<u64> {
    let message = message.clone();
    Some(match path {
        KvPrewrite::PATH => read::<PrewriteRequest>(message).start_version,
        KvCommit::PATH => read::<CommitRequest>(message).start_version,
        KvBatchRollback::PATH => read::<BatchRollbackRequest>(message).start_version,
        KvPessimisticLock::PATH => read::<PessimisticLockRequest>(message).start_version,
        KvPessimisticRollback::PATH => read::<PessimisticRollbackRequest>(message).start_version,
        KvTxnHeartBeat::PATH => read::<TxnHeartBeatRequest>(message).start_version,
        KvCheckTxnStatus::PATH => read::<CheckTxnStatusRequest>(message).lock_ts,
        KvCheckSecondaryLocks::PATH => read::<CheckSecondaryLocksRequest>(message).start_version,
        KvResolveLock::PATH => read::<ResolveLockRequest>(message).start_version,
        _ => return None,
    })
}

fn otherwise(state: &Shared) -> bool {
    let mut state = state.lock();
    let percent = state.behaviour.resolves_otherwise;
    state.does_so(percent)
}

fn read<M: Message + Default>(message: Bytes) -> M {
    M::decode(message).expect("the client's requests decode")
}

/// The client does not try again after this.
fn died() -> Failure {
    let text = "the client died".to_owned();
    Failure { code: Code::DataLoss, message: text.clone(), text, is_unsent: true, refusal: None }
}

fn prewrite(state: &Shared, mut request: PrewriteRequest) -> PrewriteRequest {
    if request.for_update_ts == 0 {
        request.lock_ttl = LOCK_TTL_MS;
    }
    // The minimum of a commit timestamp that is computed is a bound, not a permission.
    let is_computed = request.use_async_commit || request.try_one_pc;
    if !state.lock().course(request.start_version).is_pushable && !is_computed {
        request.min_commit_ts = 0;
    }
    for mutation in request.mutations.iter_mut().filter(|mutation| mutation.value == LOCK_ONLY) {
        (mutation.op, mutation.value) = (Op::Lock as i32, Bytes::new());
    }
    request
}

async fn commit(
    state: &Shared,
    connection: &Connection,
    node: NodeId,
    mut request: CommitRequest,
) -> Result<Bytes, Failure> {
    let start_ts = request.start_version;
    {
        let mut state = state.lock();
        let course = state.course(start_ts);
        course.is_dead |= course.dies_before_commit;
        if course.is_dead {
            return Err(died());
        }
    }
    // The client may give up this try meanwhile; the next one continues here.
    while state.lock().course(start_ts).waits_left > 0 {
        let wait = Duration::from_millis(100 + state.lock().rng.below(500));
        connection.executor().sleep(wait).await;
        let sends_heartbeats = {
            let mut state = state.lock();
            let course = state.course(start_ts);
            course.waits_left = course.waits_left.saturating_sub(1);
            course.sends_heartbeats
        };
        if sends_heartbeats {
            heartbeat(connection, node, &request).await;
        }
    }
    let dies_after_primary = {
        let mut state = state.lock();
        let course = state.course(start_ts);
        course.commit_ts = Some(request.commit_version);
        course.dies_after_primary
    };
    if dies_after_primary {
        request.keys.truncate(1); // The primary is the first.
    }
    let answer = connection.exchange(node, KvCommit::PATH, request.encode_to_vec().into()).await?;
    let reply: CommitResponse = read(answer.clone());
    if dies_after_primary && reply.region_error.is_none() && reply.error.is_none() {
        state.lock().course(start_ts).is_dead = true;
    }
    Ok(answer)
}

/// Extends the time to live of the lock on the primary, if the node leads.
async fn heartbeat(connection: &Connection, node: NodeId, commit: &CommitRequest) {
    let request = TxnHeartBeatRequest {
        context: commit.context.clone(),
        primary_lock: commit.keys.first().cloned().unwrap_or_default(),
        start_version: commit.start_version,
        advise_lock_ttl: LOCK_TTL_MS * 4,
    };
    let _ = connection.exchange(node, KvTxnHeartBeat::PATH, request.encode_to_vec().into()).await;
}

/// Asks for the outcome of a lock's transaction by `Cleanup`, which rolls it back if its time to live has ended.
async fn clean_up(connection: &Connection, node: NodeId, status: CheckTxnStatusRequest) -> Result<Bytes, Failure> {
    let request = CleanupRequest {
        context: status.context,
        key: status.primary_key,
        start_version: status.lock_ts,
        current_ts: status.current_ts,
    };
    let answer = connection.exchange(node, KvCleanup::PATH, request.encode_to_vec().into()).await?;
    let CleanupResponse { region_error, error, commit_version } = read(answer);
    let alive = error.as_ref().and_then(|error| error.locked.clone());
    let reply = CheckTxnStatusResponse {
        region_error,
        error: error.filter(|_| alive.is_none()),
        lock_ttl: alive.as_ref().map_or(0, |lock| lock.lock_ttl.max(1)),
        commit_version,
        lock_info: alive,
        ..Default::default()
    };
    Ok(reply.encode_to_vec().into())
}
