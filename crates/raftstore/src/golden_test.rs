//! One file for each message between stores, each value in family `meta`, the state blob, and the snapshot file: what
//! today's encoder writes, and that it is read as before.

use crate::command::{Action, Command, SplitChild, decode, encode};
use crate::consensus::log::Position;
use crate::consensus::wire::{
    AbsorberRecord, Entry, GroupState, Hibernate, RaftMessage, RegionRecord, SafeTsMessage, SafeTsRegion, SnapshotInfo,
    StoreMessage,
};
use crate::meta::{self, Tombstone, decode_group_state, encode_group_state};
use crate::model::MapView;
use crate::model::families::{DEFAULT, FAMILIES, META};
use crate::recovery::Recovery;
use crate::region::{
    Absorbed, Absorber, Epoch, MemberChange, Merges, Merging, Peer, PeerId, Region, RegionId, RoleChange, Space,
    StoreId, StoreIdentity,
};
use crate::snapshot::{self, SnapshotFile, SnapshotId};
use bytes::Bytes;
use kontiki_engine::{BatchOp, WriteBatch};
use kontiki_env::codec::{get_slice, put_slice};
use kontiki_env::testing::{check_golden, read_golden};
use prost::Message;
use raft::eraftpb::MessageType;
use std::path::{Path, PathBuf};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.hex"))
}

fn region() -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::from_static(b"a"),
        end_key: Bytes::from_static(b"m"),
        epoch: Epoch { conf_version: 3, version: 4 },
        peers: vec![
            Peer { id: PeerId(5), store: StoreId(1) },
            Peer { id: PeerId(0x0102_0304_0506_0708), store: StoreId(300) },
        ],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn snapshot_file() -> SnapshotFile {
    let id = SnapshotId { region: RegionId(2), term: 6, index: 500 };
    SnapshotFile { id, number: 3, region: region(), bytes: 1234, checksum: 0x0102_0304 }
}

fn recovery() -> Recovery {
    Recovery { number: 2, lost: [StoreId(3), StoreId(300)].into(), ..Recovery::default() }
}

fn recovery_from_learners() -> Recovery {
    Recovery { learners: [(RegionId(7), StoreId(4)), (RegionId(1 << 33), StoreId(5))].into(), ..recovery() }
}

fn entry(index: u64) -> Entry {
    Entry { kind: 0, term: 6, index, data: Bytes::from_static(b"data"), context: Bytes::from_static(b"context") }
}

/// Every type of message that stores exchange, with the fields that it uses.
fn messages() -> Vec<(&'static str, RaftMessage)> {
    use MessageType::*;
    let of = |kind: MessageType| RaftMessage { kind: kind as u32, term: 7, ..RaftMessage::default() };
    let log_end = |kind| RaftMessage { log_term: 6, index: 500, ..of(kind) };
    let context = Bytes::from_static(b"\0\0\0\0\0\0\0\x01\0\0\0\0\0\0\0\x02context");
    let info = SnapshotInfo { file_number: 0, bytes: 0, checksum: 0, ..snapshot_file().to_state() };
    vec![
        ("append", RaftMessage { commit: 499, entries: vec![entry(501), entry(502)], ..log_end(MsgAppend) }),
        ("append-accepted", RaftMessage { commit: 500, ..log_end(MsgAppendResponse) }),
        ("append-refused", RaftMessage { reject: true, reject_hint: 480, ..log_end(MsgAppendResponse) }),
        ("vote-request", RaftMessage { commit: 499, commit_term: 6, priority: 1, ..log_end(MsgRequestVote) }),
        ("vote-request-for-transfer", {
            let context = Bytes::from_static(b"CampaignTransfer");
            RaftMessage { context, transfer: 3, ..log_end(MsgRequestVote) }
        }),
        ("vote", of(MsgRequestVoteResponse)),
        ("vote-refused", RaftMessage { reject: true, commit: 499, commit_term: 6, ..of(MsgRequestVoteResponse) }),
        ("pre-vote-request", log_end(MsgRequestPreVote)),
        ("pre-vote", RaftMessage { reject: true, ..of(MsgRequestPreVoteResponse) }),
        ("snapshot", RaftMessage { snapshot: Some(info), ..of(MsgSnapshot) }),
        ("heartbeat", RaftMessage { commit: 499, context: context.clone(), ..of(MsgHeartbeat) }),
        ("heartbeat-answer", RaftMessage { context, request_snapshot: 1, ..of(MsgHeartbeatResponse) }),
        ("order-to-campaign", RaftMessage { transfer: 3, ..of(MsgTimeoutNow) }),
    ]
}

fn empty_message() -> StoreMessage {
    StoreMessage {
        region: 2,
        from_store: 1,
        to_store: 300,
        from_peer: 5,
        to_peer: 0x0102_0304_0506_0708,
        conf_version: 3,
        version: 4,
        ..StoreMessage::default()
    }
}

fn check_message(name: &str, message: &StoreMessage) {
    let path = golden(&format!("message-{name}"));
    check_golden(&path, &message.encode_to_vec());
    let read = StoreMessage::decode(read_golden(&path).as_slice()).expect("a message of this version");
    assert_eq!(read, *message, "{name}");
}

#[test]
fn messages_between_stores() {
    // The first of a leader to a replica that may not exist yet has the descriptor.
    let first = RaftMessage { kind: MessageType::MsgHeartbeat as u32, term: 7, ..RaftMessage::default() };
    let first = ("heartbeat-to-unknown", first, Some(RegionRecord::from(&region())));
    let messages = messages().into_iter().map(|(name, raft)| (name, raft, None));
    for (name, raft, descriptor) in messages.chain([first]) {
        let raft = Some(raft);
        let message =
            StoreMessage { raft, replicated: 498, unable_to_lead: true, full: true, descriptor, ..empty_message() };
        check_message(name, &message);
    }
}

#[test]
fn messages_of_hibernation() {
    let asked = Hibernate { term: 7, index: 500, agreed: false };
    let of_region = StoreMessage { replicated: 500, ..empty_message() };
    let agreed = StoreMessage { hibernate: Some(Hibernate { agreed: true, ..asked }), ..of_region.clone() };
    let asked = StoreMessage { hibernate: Some(asked), ..of_region };
    let alive = StoreMessage { from_store: 1, to_store: 300, alive: 0x0102_0304_0506_0708, ..StoreMessage::default() };
    let absorbed_by = Some(AbsorberRecord { region: 3, version: 12 });
    check_message("absorbed", &StoreMessage { absorbed_by, ..empty_message() });
    check_message("merge-failed", &StoreMessage { merge_failed: 500, knows_merges: true, ..empty_message() });
    let leadership = StoreMessage { unable_to_lead: true, leader_priority: -3, ..alive.clone() };
    let log = StoreMessage { log_write_us: 2_200, log_is_slow: true, ..alive.clone() };
    let all = [
        ("hibernate", asked),
        ("hibernates", agreed),
        ("alive", alive),
        ("alive-leadership", leadership),
        ("alive-log", log),
        ("alive-gc", StoreMessage { knows_gc: true, from_store: 1, to_store: 300, ..StoreMessage::default() }),
    ];
    for (name, message) in all {
        check_message(name, &message);
    }
}

#[test]
fn messages_of_safe_timestamps() {
    let region =
        SafeTsRegion { region: 2, peer: 2001, conf_version: 3, term: 7, version: 4, index: 500, safe_ts: 1 << 58 };
    let of = |region: SafeTsRegion| vec![region, SafeTsRegion { region: 300, ..region }];
    let (asked, confirmed, claims) = (of(region), vec![region], of(region));
    let safe_ts = SafeTsMessage { ts: 1 << 58, wanted: vec![2, 300], asked, confirmed, claims };
    let (from_store, to_store, safe_ts) = (1, 300, Some(Box::new(safe_ts)));
    let safe_ts = StoreMessage { from_store, to_store, safe_ts, knows_safe_ts: true, ..StoreMessage::default() };
    check_message("safe-ts", &safe_ts);
}

#[test]
fn entries_of_the_log() {
    let entry = entry(501);
    check_golden(&golden("entry"), &entry.encode_to_vec());
    assert_eq!(Entry::decode(read_golden(&golden("entry")).as_slice()), Ok(entry));
}

/// A new action needs a file: the match is complete.
fn name_of(action: &Action) -> &'static str {
    match action {
        Action::Write(_) => "command-write",
        Action::ChangeMembers(MemberChange::Add(_)) => "command-add-member",
        Action::ChangeMembers(MemberChange::Remove(_)) => "command-remove-member",
        Action::ChangeMembers(MemberChange::AddLearner(_)) => "command-add-learner",
        Action::ChangeMembers(MemberChange::Promote(_)) => "command-promote",
        Action::ChangeMembers(MemberChange::Demote(_)) => "command-demote",
        Action::ChangeMembers(MemberChange::Jointly(_)) => "command-change-jointly",
        Action::ChangeMembers(MemberChange::LeaveJoint) => "command-leave-joint",
        Action::Split(_) => "command-split",
        Action::PrepareMerge { .. } => "command-prepare-merge",
        Action::CommitMerge { .. } => "command-commit-merge",
        Action::RollbackMerge => "command-rollback-merge",
        Action::SetGcSafePoint(_) => "command-gc-safe-point",
        Action::ComputeChecksum { .. } => "command-compute-checksum",
        Action::VerifyChecksum { .. } => "command-verify-checksum",
        Action::Recover(recovery) if recovery.learners.is_empty() => "command-recover",
        Action::Recover(_) => "command-recover-from-learners",
    }
}

/// The context and the data of a command's entry, each with its length.
#[test]
fn commands_of_log_entries() {
    let mut batch = WriteBatch::new();
    batch.put(DEFAULT, b"b", b"value");
    batch.delete(DEFAULT, b"c");
    let child =
        SplitChild { start_key: Bytes::from_static(b"f"), id: RegionId(9), peers: vec![PeerId(91), PeerId(92)] };
    let entries = vec![Bytes::from_static(b"an entry")];
    let actions = [
        Action::Write(batch),
        Action::ChangeMembers(MemberChange::Add(Peer { id: PeerId(400), store: StoreId(4) })),
        Action::ChangeMembers(MemberChange::Remove(PeerId(400))),
        Action::ChangeMembers(MemberChange::AddLearner(Peer { id: PeerId(400), store: StoreId(4) })),
        Action::ChangeMembers(MemberChange::Promote(PeerId(400))),
        Action::ChangeMembers(MemberChange::Demote(PeerId(400))),
        Action::ChangeMembers(MemberChange::Jointly(vec![
            RoleChange::Promote(PeerId(400)),
            RoleChange::Demote(PeerId(300)),
        ])),
        Action::ChangeMembers(MemberChange::LeaveJoint),
        Action::Split(vec![child]),
        Action::PrepareMerge { target: region(), replicated_index: 480 },
        Action::CommitMerge { source: region(), prepared_index: 500, entries },
        Action::RollbackMerge,
        Action::SetGcSafePoint(1 << 58),
        Action::ComputeChecksum { expires_after_ms: 1 << 40 },
        Action::VerifyChecksum { index: 500, checksum: 0x0102_0304_0506_0708 },
        Action::Recover(recovery()),
        Action::Recover(recovery_from_learners()),
    ];
    for action in actions {
        let (name, epoch) = (name_of(&action), Epoch { conf_version: 3, version: 4 });
        let command = Command { epoch, action };
        let (carrier, context, data) = encode(&FAMILIES, command.clone());
        let mut bytes = Vec::new();
        put_slice(&mut bytes, &context);
        put_slice(&mut bytes, &data);
        check_golden(&golden(name), &bytes);
        let committed = read_golden(&golden(name));
        let rest = &mut committed.as_slice();
        let context = get_slice(rest).expect("a context");
        let data = Bytes::copy_from_slice(get_slice(rest).expect("data"));
        assert_eq!(decode(&FAMILIES, carrier, context, &data), Ok(Some(command)), "{name}");
    }
}

#[test]
fn the_state_of_a_group() {
    let state = GroupState {
        term: 7,
        vote: 5,
        commit: 499,
        truncated_index: 400,
        truncated_term: 6,
        snapshot: Some(snapshot_file().to_state()),
        promised_ns: 1_000_000_000,
        peer: 5,
        made_by: 7,
        absorbed_by: None,
    };
    check_golden(&golden("group-state"), &encode_group_state(&state));
    let read = decode_group_state(&read_golden(&golden("group-state"))).expect("a state of this version");
    assert_eq!(read, state);
    let absorbed_by = Some(AbsorberRecord { region: 3, version: 12 });
    let absorbed = GroupState { absorbed_by, snapshot: None, made_by: 0, ..state };
    check_golden(&golden("group-state-absorbed"), &encode_group_state(&absorbed));
    let read_absorbed = decode_group_state(&read_golden(&golden("group-state-absorbed")));
    assert_eq!(read_absorbed.expect("a state of this version"), absorbed);
    let file = SnapshotFile::from_info(&read.snapshot.expect("there is one")).expect("well-formed");
    assert_eq!(file, snapshot_file());
}

/// A view that holds what was put.
fn view(batch: &WriteBatch) -> MapView {
    let mut view = MapView::default();
    view.write(batch);
    view
}

#[test]
fn the_descriptor_of_a_region_that_merges() {
    let target_epoch = Epoch { conf_version: 3, version: 12 };
    let merging = Merging { target: RegionId(3), target_epoch, replicated_index: 480, prepared_index: 500 };
    let absorbed = vec![
        Absorbed { region: RegionId(9), version: 3, by: RegionId(8) },
        Absorbed { region: RegionId(8), version: 4, by: RegionId(2) },
    ];
    let merges = Merges { preparing: Some(Box::new(merging)), absorbed };
    let region = Region { merges, ..region() };
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &region);
    let mut committed = WriteBatch::new();
    for op in batch.ops() {
        let BatchOp::Put { family: META, key, value } = op else { panic!("a put: {op:?}") };
        check_golden(&golden("meta-region-merging"), value);
        committed.put(META, key, read_golden(&golden("meta-region-merging")));
    }
    assert_eq!(meta::regions(META, &view(&committed)).expect("readable"), [region]);
}

#[test]
fn values_of_family_meta() {
    let identity = StoreIdentity { cluster: 0x0102_0304_0506_0708, store: StoreId(300) };
    let mut commit = meta::bootstrap(META, &identity, &[region()]);
    meta::put_applied(META, &mut commit.batch, RegionId(2), Position { index: 500, term: 6 });
    let mut committed = WriteBatch::new();
    for op in commit.batch.ops() {
        let BatchOp::Put { family: META, key, value } = op else { panic!("only puts: {op:?}") };
        let name = match key[0] {
            1 => "meta-identity",
            2 => "meta-region",
            3 => "meta-applied",
            other => panic!("a key without a file: {other}"),
        };
        // The position is put twice, at its beginning first.
        if name != "meta-applied" || value[1] != 1 {
            check_golden(&golden(name), value);
            committed.put(META, key, read_golden(&golden(name)));
        }
    }
    let view = view(&committed);
    assert_eq!(meta::identity(META, &view).expect("readable"), Some(identity));
    assert_eq!(meta::regions(META, &view).expect("readable"), [region()]);
    assert_eq!(meta::applied_index(META, &view, RegionId(2)).expect("readable"), Some(500));
}

#[test]
fn the_record_of_an_unsafe_recovery() {
    for (name, recovery) in [("meta-recovery", recovery()), ("meta-recovery-learners", recovery_from_learners())] {
        let (mut batch, mut committed) = (WriteBatch::new(), WriteBatch::new());
        meta::put_recovery(META, &mut batch, &recovery);
        for op in batch.ops() {
            let BatchOp::Put { family: META, key, value } = op else { panic!("a put: {op:?}") };
            check_golden(&golden(name), value);
            committed.put(META, key, read_golden(&golden(name)));
        }
        assert_eq!(meta::recovery(META, &view(&committed)).expect("readable"), recovery);
    }
    assert_eq!(meta::recovery(META, &view(&WriteBatch::new())).expect("readable"), Recovery::default());
}

#[test]
fn a_tombstone() {
    check_tombstone("meta-tombstone", None);
    check_tombstone("meta-tombstone-absorbed", Some(Absorber { region: RegionId(3), version: 12 }));
}

fn check_tombstone(name: &str, absorbed: Option<Absorber>) {
    let tombstone = Tombstone { peer: PeerId(2001), conf_version: 7, absorbed };
    let mut batch = WriteBatch::new();
    meta::put_tombstone(META, &mut batch, RegionId(2), tombstone);
    let mut committed = WriteBatch::new();
    for op in batch.ops() {
        let BatchOp::Put { family: META, key, value } = op else { continue };
        check_golden(&golden(name), value);
        committed.put(META, key, read_golden(&golden(name)));
    }
    let found = meta::tombstones(META, &view(&committed)).expect("readable");
    assert_eq!(found, [(RegionId(2), tombstone)].into());
}

#[test]
fn a_snapshot_file() {
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &region());
    meta::put_applied(META, &mut batch, RegionId(2), Position { index: 500, term: 6 });
    batch.put(DEFAULT, b"apple", b"1");
    batch.put(DEFAULT, b"banana", b"2");
    let mut bytes = Vec::new();
    let mut take = |part: &[u8]| {
        bytes.extend_from_slice(part);
        Ok(())
    };
    let written = snapshot::write(&FAMILIES, &view(&batch), RegionId(2), snapshot::Content::default(), &mut take)
        .expect("readable");
    check_golden(&golden("snapshot-file"), &bytes);
    let read = snapshot::verify(&FAMILIES, &mut read_golden(&golden("snapshot-file")).as_slice()).expect("whole");
    assert_eq!(read.head(), written.head());
}
