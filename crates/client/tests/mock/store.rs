//! The mock's data: raw pairs, and a minimal Percolator.

use super::State;
use bytes::Bytes;
use kontiki_proto::kvrpcpb::*;

#[derive(Clone, Debug)]
pub struct MockLock {
    pub start_ts: u64,
    pub primary: Bytes,
    pub ttl_ms: u64,
    pub op: i32,
    pub value: Bytes,
    pub min_commit_ts: u64,
    pub txn_size: u64,
    /// With async commit: all other keys, in the primary's lock.
    pub async_commit: Option<Vec<Bytes>>,
    pub for_update_ts: u64,
}

#[derive(Clone, Debug)]
pub struct Version {
    pub start_ts: u64,
    pub commit_ts: u64,
    /// `None` is a delete.
    pub value: Option<Bytes>,
}

fn info(key: &Bytes, lock: &MockLock) -> LockInfo {
    LockInfo {
        primary_lock: lock.primary.clone(),
        lock_version: lock.start_ts,
        key: key.clone(),
        lock_ttl: lock.ttl_ms,
        txn_size: lock.txn_size,
        lock_type: lock.op,
        min_commit_ts: lock.min_commit_ts,
        lock_for_update_ts: lock.for_update_ts,
        use_async_commit: lock.async_commit.is_some(),
        secondaries: lock.async_commit.clone().filter(|_| *key == lock.primary).unwrap_or_default(),
    }
}

fn locked(key: &Bytes, lock: &MockLock) -> KeyError {
    KeyError { locked: Some(info(key, lock)), ..Default::default() }
}

impl State {
    pub fn timestamp(&mut self) -> u64 {
        self.clock += 1 << 18; // One millisecond per timestamp: waiting makes locks expire.
        self.clock
    }

    fn newest(&self, key: &[u8], ts: u64) -> Option<&Version> {
        self.versions.get(key)?.iter().filter(|version| version.commit_ts <= ts).max_by_key(|version| version.commit_ts)
    }

    fn commit_of(&self, key: &[u8], start_ts: u64) -> Option<u64> {
        let version = self.versions.get(key)?.iter().find(|version| version.start_ts == start_ts)?;
        Some(version.commit_ts)
    }

    pub fn read(&self, key: &Bytes, ts: u64, context: &Context) -> Result<Option<Bytes>, KeyError> {
        if let Some(lock) = self.locks.get(key)
            && lock.op != Op::PessimisticLock as i32
            && lock.start_ts <= ts
            && lock.min_commit_ts <= ts
            && !context.resolved_locks.contains(&lock.start_ts)
        {
            return Err(locked(key, lock));
        }
        Ok(self.newest(key, ts).and_then(|version| version.value.clone()))
    }

    pub fn scan(&self, request: &ScanRequest) -> Vec<KvPair> {
        let context = request.context.clone().unwrap_or_default();
        let (lower, upper) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        let inside = |key: &&Bytes| *key >= lower && (upper.is_empty() || *key < upper);
        let mut keys: Vec<&Bytes> = self.versions.keys().chain(self.locks.keys()).filter(inside).collect();
        keys.sort();
        keys.dedup();
        if request.reverse {
            keys.reverse();
        }
        let mut pairs = Vec::new();
        for key in keys {
            match self.read(key, request.version, &context) {
                Ok(None) => continue,
                Ok(Some(value)) => pairs.push(KvPair { key: key.clone(), value, ..Default::default() }),
                Err(error) => pairs.push(KvPair { error: Some(Box::new(error)), ..Default::default() }),
            }
            if pairs.len() == request.limit as usize {
                break;
            }
        }
        pairs
    }

    /// The lowest commit timestamp that is above everything handed out, or 0 if that is declined.
    fn computed(&mut self, request: &PrewriteRequest) -> u64 {
        let region = request.context.as_ref().map_or(0, |context| context.region_id);
        if self.declines.contains(&region) {
            return 0;
        }
        request.min_commit_ts.max(self.clock + 1 + self.computed_ahead)
    }

    pub fn prewrite(&mut self, request: &PrewriteRequest) -> PrewriteResponse {
        self.prewrites.push(request.clone());
        let is_own = |key: &Bytes, state: &State| state.commit_of(key, request.start_version);
        let committed: Vec<u64> = request.mutations.iter().filter_map(|mutation| is_own(&mutation.key, self)).collect();
        if committed.len() == request.mutations.len() {
            let newest = committed.into_iter().max().unwrap_or(0);
            let (one_pc_commit_ts, min_commit_ts) = if request.try_one_pc { (newest, 0) } else { (0, newest) };
            return PrewriteResponse { one_pc_commit_ts, min_commit_ts, ..Default::default() };
        }
        let errors = self.lock_all(request);
        if !errors.is_empty() {
            return PrewriteResponse { errors, ..Default::default() };
        }
        let mut reply = PrewriteResponse::default();
        let locked = |mutation: &&Mutation| mutation.op != Op::CheckNotExists as i32;
        let keys: Vec<Bytes> = request.mutations.iter().filter(locked).map(|mutation| mutation.key.clone()).collect();
        if request.try_one_pc {
            reply.one_pc_commit_ts = self.computed(request);
            if reply.one_pc_commit_ts != 0 {
                keys.iter().for_each(|key| self.commit_key(key, reply.one_pc_commit_ts));
            }
        } else if request.use_async_commit && !keys.is_empty() {
            let computed = self.computed(request);
            for key in keys.iter().filter(|_| computed != 0) {
                let lock = self.locks.get_mut(key).unwrap();
                if lock.async_commit.is_none() {
                    lock.min_commit_ts = computed;
                    lock.async_commit = Some(request.secondaries.clone());
                }
                reply.min_commit_ts = reply.min_commit_ts.max(lock.min_commit_ts);
            }
        }
        reply
    }

    fn lock_all(&mut self, request: &PrewriteRequest) -> Vec<KeyError> {
        let mut errors = Vec::new();
        for mutation in &request.mutations {
            let key = &mutation.key;
            if let Some(lock) = self.locks.get(key) {
                if lock.start_ts != request.start_version {
                    errors.push(locked(key, lock));
                }
                continue;
            }
            if request.for_update_ts != 0 {
                let abort = "PessimisticLockNotFound: planned".to_string();
                return vec![KeyError { abort, ..Default::default() }];
            }
            let newest = self.newest(key, u64::MAX);
            let rolled_back = self.rollbacks.contains(&(key.clone(), request.start_version));
            let newer = newest.is_some_and(|version| {
                version.commit_ts > request.start_version && version.start_ts != request.start_version
            });
            if newer || rolled_back {
                let reason = if rolled_back { 3 } else { 1 };
                let commit_ts = newest.map_or(0, |version| version.commit_ts);
                let conflict =
                    WriteConflict { key: key.clone(), conflict_commit_ts: commit_ts, reason, ..Default::default() };
                return vec![KeyError { conflict: Some(conflict), ..Default::default() }];
            }
            let absent = [Op::Insert as i32, Op::CheckNotExists as i32].contains(&mutation.op);
            if absent && newest.is_some_and(|version| version.value.is_some()) {
                let exists = AlreadyExist { key: key.clone() };
                return vec![KeyError { already_exist: Some(exists), ..Default::default() }];
            }
        }
        if errors.is_empty() {
            for mutation in request.mutations.iter().filter(|mutation| mutation.op != Op::CheckNotExists as i32) {
                let lock = MockLock {
                    start_ts: request.start_version,
                    primary: request.primary_lock.clone(),
                    ttl_ms: request.lock_ttl,
                    op: mutation.op,
                    value: mutation.value.clone(),
                    min_commit_ts: request.min_commit_ts,
                    txn_size: request.txn_size,
                    async_commit: None,
                    for_update_ts: request.for_update_ts,
                };
                if self
                    .own(&mutation.key, request.start_version)
                    .is_none_or(|held| held.op == Op::PessimisticLock as i32)
                {
                    self.locks.insert(mutation.key.clone(), lock);
                }
            }
        }
        errors
    }

    pub fn pessimistic_lock(&mut self, request: &PessimisticLockRequest) -> PessimisticLockResponse {
        let mut reply = PessimisticLockResponse::default();
        self.lock_requests.push(request.clone());
        if let Some(error) = self.lock_errors.pop_front() {
            reply.errors.push(error);
            return reply;
        }
        for mutation in &request.mutations {
            let key = &mutation.key;
            if let Some(lock) = self.locks.get(key).filter(|lock| lock.start_ts != request.start_version) {
                reply.errors.push(locked(key, lock));
                return reply;
            }
            let newest = self.newest(key, u64::MAX);
            if let Some(version) = newest.filter(|version| version.commit_ts > request.for_update_ts) {
                let conflict = WriteConflict {
                    key: key.clone(),
                    conflict_commit_ts: version.commit_ts,
                    reason: 2,
                    ..Default::default()
                };
                reply.errors.push(KeyError { conflict: Some(conflict), ..Default::default() });
                return reply;
            }
            let value = newest.and_then(|version| version.value.clone());
            if mutation.assertion == Assertion::NotExist as i32 && value.is_some() {
                reply
                    .errors
                    .push(KeyError { already_exist: Some(AlreadyExist { key: key.clone() }), ..Default::default() });
                return reply;
            }
            if request.return_values {
                reply.not_founds.push(value.is_none());
                reply.values.push(value.unwrap_or_default());
            }
        }
        for mutation in &request.mutations {
            self.locks.entry(mutation.key.clone()).or_insert(MockLock {
                start_ts: request.start_version,
                primary: request.primary_lock.clone(),
                ttl_ms: request.lock_ttl,
                op: Op::PessimisticLock as i32,
                value: Bytes::new(),
                min_commit_ts: request.min_commit_ts,
                txn_size: 0,
                async_commit: None,
                for_update_ts: request.for_update_ts,
            });
        }
        reply
    }

    pub fn pessimistic_rollback(&mut self, request: &PessimisticRollbackRequest) {
        for key in &request.keys {
            let is_meant =
                |lock: &&MockLock| lock.op == Op::PessimisticLock as i32 && lock.for_update_ts <= request.for_update_ts;
            if self.own(key, request.start_version).filter(is_meant).is_some() {
                self.locks.remove(key);
            }
        }
    }

    pub fn heart_beat(&mut self, request: &TxnHeartBeatRequest) -> TxnHeartBeatResponse {
        let mut reply = TxnHeartBeatResponse::default();
        match self.locks.get_mut(&request.primary_lock).filter(|lock| lock.start_ts == request.start_version) {
            Some(lock) => {
                lock.ttl_ms = lock.ttl_ms.max(request.advise_lock_ttl);
                reply.lock_ttl = lock.ttl_ms;
            }
            None => {
                let missing = TxnNotFound { start_ts: request.start_version, ..Default::default() };
                reply.error = Some(KeyError { txn_not_found: Some(missing), ..Default::default() });
            }
        }
        reply
    }

    fn own(&self, key: &Bytes, start_ts: u64) -> Option<&MockLock> {
        self.locks.get(key).filter(|lock| lock.start_ts == start_ts)
    }

    fn commit_key(&mut self, key: &Bytes, commit_ts: u64) {
        let lock = self.locks.remove(key).unwrap();
        if lock.op == Op::Lock as i32 {
            return;
        }
        let value = (lock.op != Op::Del as i32).then_some(lock.value);
        let version = Version { start_ts: lock.start_ts, commit_ts, value };
        self.versions.entry(key.clone()).or_default().push(version);
    }

    fn rollback_key(&mut self, key: &Bytes, start_ts: u64) {
        if self.own(key, start_ts).is_some() {
            self.locks.remove(key);
        }
        self.rollbacks.insert((key.clone(), start_ts));
    }

    pub fn commit(&mut self, request: &CommitRequest) -> Option<KeyError> {
        if let Some(error) = self.commit_errors.pop_front() {
            return Some(error);
        }
        let is_done = |key: &Bytes| self.commit_of(key, request.start_version).is_some();
        if let Some(abort) = self.fails_if_done.clone().filter(|_| request.keys.iter().any(is_done)) {
            return Some(KeyError { abort, ..Default::default() });
        }
        for key in &request.keys {
            match self.own(key, request.start_version) {
                Some(lock) if request.commit_version < lock.min_commit_ts => {
                    let expired = CommitTsExpired { min_commit_ts: lock.min_commit_ts, ..Default::default() };
                    return Some(KeyError { commit_ts_expired: Some(expired), ..Default::default() });
                }
                None if self.commit_of(key, request.start_version).is_none() => {
                    let missing = TxnLockNotFound { key: key.clone() };
                    let text = "TxnLockNotFound".to_string();
                    return Some(KeyError { txn_lock_not_found: Some(missing), retryable: text, ..Default::default() });
                }
                _ => {}
            }
        }
        for key in &request.keys {
            if self.own(key, request.start_version).is_some() {
                self.commit_key(key, request.commit_version);
            }
        }
        None
    }

    pub fn rollback(&mut self, request: &BatchRollbackRequest) -> Option<KeyError> {
        for key in &request.keys {
            if self.commit_of(key, request.start_version).is_some() {
                return Some(KeyError { abort: "already committed".to_string(), ..Default::default() });
            }
            self.rollback_key(key, request.start_version);
        }
        None
    }

    pub fn check_txn_status(&mut self, request: &CheckTxnStatusRequest) -> CheckTxnStatusResponse {
        let (key, start_ts) = (&request.primary_key, request.lock_ts);
        let mut reply = CheckTxnStatusResponse::default();
        if let Some(mut lock) = self.own(key, start_ts).cloned() {
            if request.verify_is_primary && lock.primary != *key {
                let mismatch = PrimaryMismatch { lock_info: Some(info(key, &lock)) };
                reply.error = Some(KeyError { primary_mismatch: Some(mismatch), ..Default::default() });
                return reply;
            }
            if lock.async_commit.is_some() && !request.force_sync_commit {
                reply.lock_ttl = lock.ttl_ms;
                reply.lock_info = Some(info(key, &lock));
                return reply;
            }
            if (lock.start_ts >> 18) + lock.ttl_ms < request.current_ts >> 18 {
                if lock.op == Op::PessimisticLock as i32 && request.resolving_pessimistic_lock {
                    self.locks.remove(key);
                    reply.action = Action::TtlExpirePessimisticRollback as i32;
                    return reply;
                }
                self.rollback_key(key, start_ts);
                reply.action = Action::TtlExpireRollback as i32;
                return reply;
            }
            let caller = request.caller_start_ts;
            if lock.min_commit_ts != 0 && caller >= lock.min_commit_ts {
                lock.min_commit_ts = caller + 1;
            }
            if caller != 0 && lock.min_commit_ts > caller {
                reply.action = Action::MinCommitTsPushed as i32;
            }
            reply.lock_ttl = lock.ttl_ms;
            reply.lock_info = Some(info(key, &lock));
            self.locks.insert(key.clone(), lock);
        } else if let Some(commit_ts) = self.commit_of(key, start_ts) {
            reply.commit_version = commit_ts;
        } else if !self.rollbacks.contains(&(key.clone(), start_ts)) {
            if request.rollback_if_not_exist && request.resolving_pessimistic_lock {
                reply.action = Action::LockNotExistDoNothing as i32;
            } else if request.rollback_if_not_exist {
                self.rollback_key(key, start_ts);
                reply.action = Action::LockNotExistRollback as i32;
            } else {
                let missing = TxnNotFound { start_ts, primary_key: key.clone() };
                reply.error = Some(KeyError { txn_not_found: Some(missing), ..Default::default() });
            }
        }
        reply
    }

    pub fn check_secondary_locks(&mut self, request: &CheckSecondaryLocksRequest) -> CheckSecondaryLocksResponse {
        let mut reply = CheckSecondaryLocksResponse::default();
        for key in &request.keys {
            match self.own(key, request.start_version) {
                Some(lock) => reply.locks.push(info(key, lock)),
                None => {
                    reply.locks.clear();
                    reply.commit_ts = self.commit_of(key, request.start_version).unwrap_or_default();
                    if reply.commit_ts == 0 {
                        self.rollback_key(key, request.start_version);
                    }
                    return reply;
                }
            }
        }
        reply
    }

    pub fn resolve(&mut self, request: &ResolveLockRequest) {
        let wanted = |key: &Bytes| request.keys.is_empty() || request.keys.contains(key);
        let held: Vec<Bytes> = self
            .locks
            .iter()
            .filter(|(key, lock)| lock.start_ts == request.start_version && wanted(key))
            .map(|(key, _)| key.clone())
            .collect();
        for key in held {
            match request.commit_version {
                0 => self.rollback_key(&key, request.start_version),
                commit_ts => self.commit_key(&key, commit_ts),
            }
        }
    }

    pub fn raw_scan(&self, request: &RawScanRequest) -> Vec<KvPair> {
        let (lower, upper) = match request.reverse {
            false => (&request.start_key, &request.end_key),
            true => (&request.end_key, &request.start_key),
        };
        let inside = |(key, _): &(&Bytes, &Bytes)| *key >= lower && (upper.is_empty() || *key < upper);
        let pair = |(key, value): (&Bytes, &Bytes)| KvPair {
            key: key.clone(),
            value: if request.key_only { Bytes::new() } else { value.clone() },
            ..Default::default()
        };
        let found = self.raw.iter().filter(inside).map(pair);
        let mut found: Vec<KvPair> = found.collect();
        if request.reverse {
            found.reverse();
        }
        found.truncate(request.limit as usize);
        found
    }
}
