//! One store with its disk, clock and unfinished work.

use super::disk::Disk;
use super::families;
use super::view::Table;
use bytes::Bytes;
use kontiki_engine::{BatchOp, Commit, Family, WriteBatch};
use kontiki_env::rng::Rng;
use kontiki_raftstore::snapshot::{self, FileId, FileNumbers, InstallError, InstallTarget, SnapshotHead};
use kontiki_raftstore::{
    Answer, Apply, ApplyId, Checksum, ChecksumTask, Config, Effects, EntriesTask, Event, Fault, Observation, PersistId,
    Readers, Region, RegionId, SafeTsClaim, SafeTsTask, SnapshotTask, Store, StoreId, StoreIdentity, Ticket, ViewId,
    meta,
};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

/// A write that is late by this much makes the log unwritable.
const STALL_MAX: Duration = Duration::from_secs(1);

/// Work on a snapshot that takes more than one step.
pub enum Job {
    Prepare {
        region: RegionId,
        view: ViewId,
        result: Result<SnapshotHead, String>,
    },
    /// The bytes are those of the view.
    Send {
        region: RegionId,
        to: StoreId,
        message: Bytes,
        view: ViewId,
        bytes: Vec<u8>,
    },
    /// The steps are made when it begins.
    Install {
        region: RegionId,
        file: FileId,
        steps: Option<VecDeque<InstallStep>>,
    },
    Remove {
        file: FileId,
    },
    /// What the stream holds at its end, if it was not read before.
    Entries {
        task: EntriesTask,
        read: Option<Result<Vec<Bytes>, String>>,
    },
    /// As of when it began.
    SafeTs {
        claims: Vec<SafeTsClaim>,
    },
    /// The checksum is that of the view when it begins.
    Checksum {
        region: RegionId,
        index: u64,
        result: Result<u64, String>,
    },
}

/// A part of an install that a crash leaves whole.
pub enum InstallStep {
    /// Visible, and durable with the next flush.
    Write(WriteBatch),
    Flush,
    /// Tables that are taken in: visible and durable at once, and nothing else with them.
    Ingest(WriteBatch),
}

/// Notes the steps of an install.
#[derive(Default)]
struct InstallSteps {
    steps: VecDeque<InstallStep>,
    tables: WriteBatch,
}

impl InstallTarget for InstallSteps {
    /// Each operation by itself, so that crashes find every intermediate state.
    fn commit(&mut self, batch: WriteBatch) -> kontiki_engine::Result<()> {
        let is_last = |op: &BatchOp<'_>| meta::applied_by(families::META, op).is_some();
        if batch.ops().any(|op| is_last(&op)) {
            // Descriptor and applied position.
            self.steps.push_back(InstallStep::Write(batch));
            return Ok(());
        }
        for op in batch.ops() {
            let mut single = WriteBatch::new();
            match op {
                BatchOp::Put { family, key, value } => single.put(family, key, value),
                BatchOp::DeleteRange { family, start, end } => single.delete_range(family, start..end),
                other => panic!("a snapshot installs no {other:?}"),
            }
            self.steps.push_back(InstallStep::Write(single));
        }
        Ok(())
    }

    fn is_kept_in_tables(&self, _: Family, value_bytes: usize) -> bool {
        // So that some of the values are not.
        value_bytes % 4 != 3
    }

    fn add(&mut self, family: Family, key: &[u8], value: &[u8], _: Option<u64>) -> kontiki_engine::Result<()> {
        self.tables.put(family, key, value);
        Ok(())
    }

    fn ingest(&mut self) -> kontiki_engine::Result<()> {
        if !self.tables.is_empty() {
            self.steps.push_back(InstallStep::Flush);
            self.steps.push_back(InstallStep::Ingest(std::mem::take(&mut self.tables)));
        }
        Ok(())
    }
}

pub struct Node {
    pub id: StoreId,
    pub disk: Disk,
    /// What readers see: tables and memory.
    pub visible: Table,
    pub store: Option<Store>,
    /// Replicas of this directory may be created here.
    pub directory: Option<u64>,
    pub readers: Arc<Readers>,
    pub file_numbers: FileNumbers,
    /// The clock: local = offset + rate * true.
    pub rate_percent: u64,
    pub offset: Duration,
    /// Not scheduled before this true time.
    pub paused_until: Duration,
    /// How long a write of the log takes, beside a random part of 30 ms.
    pub disk_slower_by: Duration,
    /// The disk completes nothing before this true time.
    pub disk_stalled_until: Duration,
    pub persists: VecDeque<(Duration, PersistId, Commit)>,
    /// What was last reported to the store.
    pub log_writable: bool,
    pub applies: VecDeque<(Duration, ApplyId, WriteBatch)>,
    pub apply_delay: Duration,
    /// How long an install, or a removal, is delayed at most, in milliseconds.
    pub job_delay_ms_max: u64,
    pub jobs: Vec<(Duration, Job)>,
    /// How long a snapshot is in flight at most, in milliseconds.
    pub send_delay_ms_max: u64,
    /// How often no view can be taken.
    pub view_failures_percent: u64,
    /// How long a read of entries takes at most, in milliseconds.
    pub read_delay_ms_max: u64,
    /// How often it fails.
    pub read_failures_percent: u64,
    /// Entries that were read, and the most that were being read at the same time, in bytes.
    pub entries_read: usize,
    /// Reads that found their first entry truncated.
    pub reads_too_late: usize,
    /// No flush ends.
    pub flush_stalls: bool,
    pub reading_bytes_max: usize,
    /// Views kept for snapshots.
    pub views: BTreeMap<ViewId, Table>,
    /// Views that were taken.
    pub views_taken: usize,
    pub inbox: VecDeque<Event>,
    pub outbound: Vec<(StoreId, Bytes)>,
    pub answers: Vec<(Ticket, Answer)>,
    /// Tickets of this incarnation that are not answered.
    pub open: BTreeMap<Ticket, Event>,
    pub observations: Vec<Observation>,
    /// It wants a timestamp.
    pub wants_timestamp: bool,
    /// What it reads for checksums lacks a key.
    pub is_damaged: bool,
    /// Why it stopped.
    pub fault: Option<Fault>,
    pub installs: usize,
    /// Every second file is taken in as tables, and not key by key.
    pub installs_tables: bool,
    /// Of the installs, also those that were not completed, how many took in tables.
    pub ingests: usize,
    /// Files that held the data through here were removed.
    pub lost_through: u64,
    pub restarts: u64,
}

/// The parts of an apply cover its batch in order, and each ends with its region's applied position.
fn check_parts(apply: &Apply) {
    let mut next = 0;
    for part in &apply.parts {
        assert_eq!(part.operations.start, next, "a part begins where the one before it ended");
        for command in &part.commands {
            assert_eq!(command.operations.start, next, "and so does a command");
            assert!(!command.operations.is_empty() && command.index <= part.index);
            next = command.operations.end;
        }
        assert!(part.commands.is_sorted_by(|a, b| a.index < b.index));
        assert_eq!(part.operations.end, next + 1, "the applied position is the last operation");
        let position = apply.batch.ops().nth(next).expect("it is in the batch");
        assert_eq!(meta::applied_by(families::META, &position), Some((part.region, part.index)));
        next += 1;
    }
    assert_eq!(next, apply.batch.len(), "no operation is without a part");
}

impl Node {
    pub fn new(id: StoreId, regions: &[Region]) -> Node {
        let mut disk = Disk::default();
        let own: Vec<Region> = regions.iter().filter(|region| region.peer_on(id).is_some()).cloned().collect();
        disk.commit(&Store::bootstrap(&families::FAMILIES, &StoreIdentity { cluster: 7, store: id }, &own));
        Node {
            id,
            visible: disk.tables.clone(),
            disk,
            store: None,
            directory: Some(id.0),
            readers: Arc::new(Readers::default()),
            file_numbers: FileNumbers::default(),
            rate_percent: 100,
            offset: Duration::from_secs(1000 * id.0),
            paused_until: Duration::ZERO,
            disk_slower_by: Duration::ZERO,
            disk_stalled_until: Duration::ZERO,
            persists: VecDeque::new(),
            log_writable: true,
            applies: VecDeque::new(),
            apply_delay: Duration::ZERO,
            job_delay_ms_max: 200,
            jobs: Vec::new(),
            send_delay_ms_max: 200,
            view_failures_percent: 10,
            read_delay_ms_max: 50,
            read_failures_percent: 5,
            entries_read: 0,
            reads_too_late: 0,
            flush_stalls: false,
            reading_bytes_max: 0,
            views: BTreeMap::new(),
            views_taken: 0,
            inbox: VecDeque::new(),
            outbound: Vec::new(),
            answers: Vec::new(),
            open: BTreeMap::new(),
            observations: Vec::new(),
            wants_timestamp: false,
            is_damaged: false,
            fault: None,
            installs: 0,
            installs_tables: true,
            ingests: 0,
            lost_through: 0,
            restarts: 0,
        }
    }

    pub fn local(&self, now: Duration) -> Duration {
        self.offset + now * self.rate_percent as u32 / 100
    }

    pub fn is_up(&self) -> bool {
        self.store.is_some()
    }

    pub fn start(&mut self, config: &Config, rng: &Rng) {
        assert!(self.store.is_none());
        self.restarts += 1;
        let mut store = Store::new(
            config.clone(),
            &families::FAMILIES,
            rng.child(&format!("store {} start {}", self.id, self.restarts)),
        );
        self.visible = self.disk.tables.clone();
        let streams = self.disk.streams.iter().map(|(id, contents)| (*id, contents.clone())).collect();
        store.recover(&self.visible, streams).expect("the disk holds a complete store");
        if let Some(directory) = self.directory {
            store.create_replicas_of(directory);
        }
        self.file_numbers = store.file_numbers();
        for file in self.disk.files.keys() {
            self.file_numbers.skip_through(file.number);
        }
        let needed: Vec<FileId> = store.needed_files();
        self.disk.files.retain(|file, _| needed.contains(file));
        self.readers = store.readers();
        self.log_writable = true;
        self.store = Some(store);
    }

    /// The disk of a store that is down is replaced by an empty one.
    pub fn replace_disk(&mut self, directory: u64) {
        assert!(!self.is_up());
        self.disk = Disk::default();
        self.disk.commit(&Store::bootstrap(&families::FAMILIES, &StoreIdentity { cluster: 7, store: self.id }, &[]));
        (self.directory, self.lost_through) = (Some(directory), 0);
    }

    /// Loses what is not durable; of the persists in flight, the first `survivors` became durable.
    pub fn crash(&mut self, survivors: usize) {
        assert!(self.store.take().is_some());
        for (_, _, commit) in self.persists.drain(..).take(survivors) {
            self.disk.commit(&commit);
        }
        self.applies.clear();
        self.jobs.clear();
        self.views.clear();
        self.inbox.clear();
        self.outbound.clear();
        for ticket in std::mem::take(&mut self.open).into_keys() {
            self.answers.push((ticket, Answer::Dropped));
        }
        self.readers = Arc::new(Readers::default());
    }

    /// A snapshot has arrived completely: its file is verified and has its name.
    pub fn receive_snapshot(&mut self, message: Bytes, bytes: Vec<u8>) {
        let expected = snapshot::announced(message.clone()).expect("a snapshot message");
        let arrived = snapshot::verify(&families::FAMILIES, &mut bytes.as_slice()).expect("whole");
        assert_eq!(expected, arrived.head(), "what came is what the message announces");
        let file = arrived.numbered(self.file_numbers.next());
        self.disk.files.insert(file.name(), bytes);
        self.inbox.push_back(Event::SnapshotReceived { message, file });
    }

    pub fn ask(&mut self, ticket: Ticket, event: Event) {
        self.open.insert(ticket, event.clone());
        self.inbox.push_back(event);
    }

    /// Applies that were blocked are done, and further ones are not blocked.
    pub fn release_applies(&mut self) {
        self.apply_delay = Duration::ZERO;
        self.applies.iter_mut().for_each(|(due, ..)| *due = Duration::ZERO);
    }

    /// Tables now hold what is visible.
    pub fn flush(&mut self) {
        if self.flush_stalls {
            return;
        }
        self.disk.tables = self.visible.clone();
        let regions = meta::regions(families::META, &self.disk.tables).expect("readable");
        let applied = regions.iter().map(|region| {
            (
                region.id,
                meta::applied_index(families::META, &self.disk.tables, region.id).expect("readable").expect("there"),
            )
        });
        let event = Event::Flushed { applied: applied.collect() };
        self.inbox.push_back(event);
    }

    /// One scheduling of this node.
    pub fn step(&mut self, now: Duration, rng: &mut Rng) {
        let local = self.local(now);
        self.complete(now);
        let writable = self.persists.front().is_none_or(|(due, ..)| now < *due + STALL_MAX);
        if writable != std::mem::replace(&mut self.log_writable, writable) {
            self.inbox.push_back(Event::LogWritable { writable });
        }
        self.inbox.push_back(Event::Tick);
        while let Some(event) = self.inbox.pop_front() {
            self.store.as_mut().expect("only nodes that are up are stepped").handle(event, local);
        }
        for round in 0.. {
            assert!(round < 1000, "poll comes to an end");
            let store = self.store.as_mut().expect("up");
            let effects = store.poll(local);
            if effects.is_empty() {
                break;
            }
            self.perform(effects, now, rng);
            if self.fault.is_some() {
                return;
            }
            // Applies without delay are visible at once, as in the real driver.
            self.complete_applies(now);
            while let Some(event) = self.inbox.pop_front() {
                self.store.as_mut().expect("up").handle(event, local);
            }
        }
    }

    fn complete_applies(&mut self, now: Duration) {
        while self.applies.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, id, batch) = self.applies.pop_front().expect("just seen");
            self.visible.write(&batch);
            self.inbox.push_back(Event::Applied { through: id });
        }
    }

    fn complete(&mut self, now: Duration) {
        while now >= self.disk_stalled_until && self.persists.front().is_some_and(|(due, ..)| *due <= now) {
            let (_, id, commit) = self.persists.pop_front().expect("just seen");
            self.disk.commit(&commit);
            self.visible.write(&commit.batch);
            self.inbox.push_back(Event::Persisted { batch: id });
        }
        self.complete_applies(now);
        self.complete_jobs(now);
    }

    /// Does the work on snapshots that is due, except for sending.
    pub fn complete_jobs(&mut self, now: Duration) {
        for (due, job) in std::mem::take(&mut self.jobs) {
            match job {
                _ if due > now => self.jobs.push((due, job)),
                Job::Prepare { region, view, result } => {
                    if result.is_err() {
                        self.views.remove(&view);
                    }
                    self.inbox.push_back(Event::SnapshotPrepared { region, view, result });
                }
                Job::Install { region, file, steps: None } => match self.read_steps(&file) {
                    Ok(steps) => self.jobs.push((now, Job::Install { region, file, steps: Some(steps) })),
                    Err(error) => {
                        self.inbox.push_back(Event::SnapshotInstalled { region, file, result: Err(error) });
                    }
                },
                Job::Install { region, file, steps: Some(mut steps) } => match steps.pop_front() {
                    Some(step) => {
                        self.install_step(step);
                        self.jobs.push((now, Job::Install { region, file, steps: Some(steps) }));
                    }
                    None => {
                        self.installs += 1;
                        self.inbox.push_back(Event::SnapshotInstalled { region, file, result: Ok(()) });
                    }
                },
                Job::Remove { file } => {
                    if self.store.as_ref().expect("up").may_remove(&file) {
                        self.disk.files.remove(&file);
                    }
                }
                Job::Entries { task, read } => {
                    let result = read.unwrap_or_else(|| Ok(self.disk.entries(task.region, &task.indices)));
                    self.reads_too_late += usize::from(result.as_ref().is_ok_and(Vec::is_empty));
                    self.entries_read += result.as_ref().map_or(0, Vec::len);
                    self.inbox.push_back(Event::EntriesRead { region: task.region, id: task.id, result });
                }
                Job::SafeTs { claims } => self.inbox.push_back(Event::SafeTs { claims }),
                Job::Checksum { region, index, result } => {
                    self.inbox.push_back(Event::Checksummed { region, index, result });
                }
                // The cluster moves it.
                Job::Send { .. } => self.jobs.push((due, job)),
            }
        }
    }

    pub fn perform(&mut self, effects: Effects, now: Duration, rng: &mut Rng) {
        assert!(effects.fault.is_none() || self.is_damaged, "store {} stops: {:?}", self.id, effects.fault);
        if effects.fault.is_some() {
            self.fault = effects.fault;
            return;
        }
        for task in effects.checksums {
            self.start_checksum(task, now, rng);
        }
        if !effects.safe_ts.is_empty() {
            let claims = effects.safe_ts.iter().filter_map(|task| self.claim(task)).collect();
            let due = now + Duration::from_millis(rng.below(self.job_delay_ms_max));
            self.jobs.push((due, Job::SafeTs { claims }));
        }
        self.wants_timestamp |= effects.wants_timestamp;
        self.outbound.extend(effects.send);
        if let Some(persist) = effects.persist {
            let earliest = self.persists.back().map_or(now, |(due, ..)| *due);
            let due = earliest.max(now + self.disk_slower_by + Duration::from_millis(rng.below(30)));
            self.persists.push_back((due, persist.id, persist.commit));
        }
        if let Some(apply) = effects.apply {
            check_parts(&apply);
            let earliest = self.applies.back().map_or(now, |(due, ..)| *due);
            self.applies.push_back((earliest.max(now + self.apply_delay), apply.id, apply.batch));
        }
        for (ticket, answer) in effects.answers {
            assert!(self.open.remove(&ticket).is_some(), "{ticket:?} is answered once");
            self.answers.push((ticket, answer));
        }
        self.observations.extend(effects.observations);
        if effects.flush {
            self.flush();
        }
        for task in effects.snapshots {
            self.start_job(task, now, rng);
        }
        for task in effects.entries {
            self.start_read(task, now, rng);
        }
        let reading = self.jobs.iter().map(|(_, job)| if let Job::Entries { task, .. } = job { task.bytes } else { 0 });
        self.reading_bytes_max = self.reading_bytes_max.max(reading.sum());
    }

    /// What the visible state permits to claim. A lock's value begins with the start of its transaction.
    fn claim(&self, task: &SafeTsTask) -> Option<SafeTsClaim> {
        let id = task.region.id;
        let here = meta::region(families::META, &self.visible, id).expect("readable")?;
        let index = meta::applied_index(families::META, &self.visible, id).expect("readable")?;
        if here.epoch.version != task.region.epoch.version || here.merging().is_some() {
            return None;
        }
        let locks =
            self.visible.0.iter().filter(|((family, key), _)| *family == families::TXN_LOCK.0 && here.contains(key));
        let oldest =
            locks.map(|(_, value)| u64::from_be_bytes(value[..8].try_into().expect("a start timestamp"))).min();
        let safe_ts = oldest.map_or(task.ts, |oldest| task.ts.min(oldest - 1));
        Some(SafeTsClaim { region: id, version: here.epoch.version, index, safe_ts })
    }

    /// Reads the stream now or later, so that truncation, and the end of the replica, come before and after.
    fn start_read(&mut self, task: EntriesTask, now: Duration, rng: &mut Rng) {
        assert!(!task.indices.is_empty() && task.bytes > 0, "a read is of something: {task:?}");
        let read = match rng.below(100) {
            percent if percent < self.read_failures_percent => Some(Err("a disk that fails".to_owned())),
            percent => (percent % 2 == 0).then(|| Ok(self.disk.entries(task.region, &task.indices))),
        };
        let due = now + Duration::from_millis(rng.below(self.read_delay_ms_max + 1));
        self.jobs.push((due, Job::Entries { task, read }));
    }

    fn start_checksum(&mut self, task: ChecksumTask, now: Duration, rng: &mut Rng) {
        let ChecksumTask { region, index, expires_after_ms } = task;
        let position = meta::applied_index(families::META, &self.visible, region.id).expect("readable");
        assert_eq!(position, Some(index), "the view holds what is applied through the index, and nothing else");
        let mut view = self.visible.clone();
        if self.is_damaged {
            let mut batch = WriteBatch::new();
            let first = super::check::entries_of(&view, &region).into_iter().next().expect("it has keys");
            batch.delete(kontiki_engine::Family(first.0), &first.1);
            view.write(&batch);
        }
        let id = region.id;
        let result = Checksum::new(&families::FAMILIES, region, expires_after_ms).advance(&view, u64::MAX);
        let result = result.map_err(|error| error.to_string()).map(|checksum| checksum.expect("it read everything"));
        let result = if rng.chance(self.view_failures_percent, 100) { Err("no checksum".to_owned()) } else { result };
        let due = now + Duration::from_millis(rng.below(self.job_delay_ms_max));
        self.jobs.push((due, Job::Checksum { region: id, index, result }));
    }

    fn start_job(&mut self, task: SnapshotTask, now: Duration, rng: &mut Rng) {
        let due = now + Duration::from_millis(rng.below(200));
        match task {
            SnapshotTask::Prepare { region, view } => {
                let described =
                    snapshot::describe(&families::FAMILIES, &self.visible, region).map_err(|error| error.to_string());
                let fails = rng.chance(self.view_failures_percent, 100);
                let result = if fails { Err("no view".to_owned()) } else { described };
                assert!(self.views.insert(view, self.visible.clone()).is_none(), "names of views are used once");
                self.views_taken += 1;
                self.jobs.push((due, Job::Prepare { region, view, result }));
            }
            SnapshotTask::Send { to, message, view, snapshot, left_out } => {
                let due = now + Duration::from_millis(rng.below(self.send_delay_ms_max));
                let (region, mut bytes) = (snapshot.region, Vec::new());
                let table = self.views.get(&view).expect("a view that is sent from is kept");
                let content = snapshot::Content { left_out, ..snapshot::Content::default() };
                let written = snapshot::write(&families::FAMILIES, table, region, content, &mut |part| {
                    bytes.extend_from_slice(part);
                    Ok(())
                });
                assert_eq!(written.expect("readable").id, snapshot, "the view holds what was reported of it");
                self.jobs.push((due, Job::Send { region, to, message, view, bytes }));
            }
            SnapshotTask::Release { view } => {
                let sent_from = |job: &(Duration, Job)| matches!(job.1, Job::Send { view: of, .. } if of == view);
                assert!(!self.jobs.iter().any(sent_from), "a view that is sent from is kept");
                assert!(self.views.remove(&view).is_some(), "a view is released once");
            }
            SnapshotTask::Install { region, file } => {
                let due = now + Duration::from_millis(rng.below(self.job_delay_ms_max));
                self.jobs.push((due, Job::Install { region, file, steps: None }));
            }
            SnapshotTask::Remove { file } => {
                let due = now + Duration::from_millis(rng.below(self.job_delay_ms_max));
                self.jobs.push((due, Job::Remove { file }));
            }
        }
    }

    fn install_step(&mut self, step: InstallStep) {
        match step {
            InstallStep::Write(batch) => self.visible.write(&batch),
            InstallStep::Flush => self.flush(),
            InstallStep::Ingest(tables) => {
                self.ingests += 1;
                self.visible.write(&tables);
                self.disk.tables.write(&tables);
            }
        }
    }

    /// What installing a file does.
    fn read_steps(&self, file: &FileId) -> Result<VecDeque<InstallStep>, InstallError> {
        let missing = || InstallError::FileLost(format!("{} is not there", file.file_name()));
        let bytes = self.disk.files.get(file).ok_or_else(missing)?;
        let view = self.visible.clone();
        let open: &mut dyn FnMut() -> std::io::Result<Box<dyn std::io::Read>> =
            &mut || Ok(Box::new(std::io::Cursor::new(bytes.clone())));
        let mut target = InstallSteps::default();
        let as_tables = self.installs_tables && file.number % 2 == 1;
        let tables_from = as_tables.then_some(file.number % 3 * 40);
        let installed = snapshot::install(&families::FAMILIES, &view, file.snapshot, tables_from, open, &mut target);
        installed.map_err(|error| error.of_install(&file.file_name()))?;
        Ok(target.steps)
    }
}
