use super::*;
use crate::command::{Change, Refusal, decide};
use crate::model::families::{self, FAMILIES};
use crate::region::Space;
use kontiki_engine::{BatchOp, Family};
use proptest::prelude::*;

fn region() -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"d"),
        epoch: Epoch { conf_version: 1, version: 3 },
        peers: vec![Peer { id: PeerId(1), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn normal(context: &[u8], data: &[u8]) -> Result<Option<Command>, DecodeError> {
    decode(&FAMILIES, Carrier::Normal, context, &Bytes::copy_from_slice(data))
}

#[test]
fn a_leaders_first_entry_has_no_command() {
    assert_eq!(normal(&[], &[]), Ok(None));
}

#[test]
fn an_unknown_format_is_not_taken_for_something_else() {
    let write = encode_write_context(&FAMILIES, region().epoch, &WriteBatch::new());
    for format in [0, 5, 255] {
        let mut unknown = write.to_vec();
        unknown[0] = format;
        assert_eq!(normal(&unknown, &[]), Err(DecodeError::UnknownFormat));
    }
    assert_eq!(normal(&[], &[7]), Err(DecodeError::UnknownFormat), "data without a context");
    assert_eq!(normal(&[&write[..], &[0]].concat(), &[]), Err(DecodeError::UnknownFormat), "more than there should be");
    assert_eq!(normal(&[3, 1, 3, 99], &[]), Err(DecodeError::UnknownFormat), "a kind of a later version");
    assert_eq!(normal(&[3, 1, 3, KIND_ROLLBACK_MERGE], &[1]), Err(DecodeError::UnknownFormat), "data of no meaning");
    assert_eq!(normal(&write, &[7]), Err(DecodeError::Batch));
}

/// Entries that a log still holds from the time before the families had reserved numbers.
#[test]
fn a_write_of_the_earlier_format_goes_to_the_families_it_meant() {
    let mut context = encode_write_context(&FAMILIES, region().epoch, &WriteBatch::new()).to_vec();
    context[0] = FORMAT_EARLIER_WRITE;
    let mut earlier = WriteBatch::new();
    earlier.put(families::DEFAULT, b"b", b"raw");
    earlier.put_expiring(Family(1), b"b", b"1", 9);
    earlier.delete(Family(2), b"c");
    earlier.delete_range(Family(3), b"b"..b"d");
    let Ok(Some(command)) = normal(&context, earlier.as_bytes()) else { panic!("it is a command") };
    let Ok(Change::Write(batch)) = decide(&FAMILIES, &region(), command) else { panic!("it is written") };
    let found: Vec<_> = batch.ops().map(|op| op.family()).collect();
    assert_eq!(found, families::DATA_FAMILIES);
    let BatchOp::PutExpiring { value: b"1", expires_at_ms: 9, .. } = batch.ops().nth(1).expect("there") else {
        panic!("nothing else changes")
    };
    let today = normal(&encode_write_context(&FAMILIES, region().epoch, &WriteBatch::new()), earlier.as_bytes())
        .expect("decodes")
        .expect("a command");
    assert_eq!(decide(&FAMILIES, &region(), today), Err(Refusal::ForeignKey), "a user's families today");
}

/// A node of a release without the family must stop there: the others apply it.
#[test]
fn a_write_to_a_later_family_is_of_a_format_that_earlier_releases_do_not_know() {
    const WITH_LATER: Families = Families { later: &[families::TXN_WRITE], ..FAMILIES };
    for (family, format) in [(families::DEFAULT, FORMAT_WRITE), (families::TXN_WRITE, FORMAT_LATER_WRITE)] {
        let mut batch = WriteBatch::new();
        batch.put(families::DEFAULT, b"b", b"1");
        batch.delete_range(family, b"b"..b"c");
        let command = Command { epoch: region().epoch, action: Action::Write(batch) };
        let (carrier, context, data) = encode(&WITH_LATER, command.clone());
        assert_eq!(context[0], format);
        assert_eq!(decode(&WITH_LATER, carrier, &context, &data), Ok(Some(command)));
        assert!(is_write(&context));
    }
}

/// The bytes are those of entries in logs, and of nodes of other versions.
#[test]
fn the_bytes_of_each_command_are_fixed() {
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    let of = |action| {
        let command = Command { epoch: Epoch { conf_version: 1, version: 300 }, action };
        let (carrier, context, data) = encode(&FAMILIES, command.clone());
        assert_eq!(decode(&FAMILIES, carrier, &context, &data), Ok(Some(command)));
        format!("{} {}", hex(&context), hex(&data))
    };
    let mut batch = WriteBatch::new();
    batch.put(families::DEFAULT, b"k", b"v");
    let (add, remove) = (Peer { id: PeerId(300), store: StoreId(4) }, PeerId(5));
    let child = SplitChild { start_key: Bytes::from_static(b"c"), id: RegionId(9), peers: vec![PeerId(300)] };
    let record = "14".to_owned() + "0802" + "120162" + "1a0164" + "2001" + "2803" + "320408011001" + "3801";
    let entries = vec![Bytes::from_static(b"one"), Bytes::new()];
    assert_eq!(of(Action::Write(batch)), "0201ac02 0100016b0176");
    assert_eq!(of(Action::ChangeMembers(MemberChange::Add(add))), "0101ac0201ac0204 ");
    assert_eq!(of(Action::ChangeMembers(MemberChange::Remove(remove))), "0101ac02020500 ");
    assert_eq!(of(Action::ChangeMembers(MemberChange::AddLearner(add))), "0101ac0203ac0204 ");
    assert_eq!(of(Action::ChangeMembers(MemberChange::Promote(remove))), "0101ac02040500 ");
    assert_eq!(of(Action::ChangeMembers(MemberChange::Demote(remove))), "0101ac02050500 ");
    let roles = vec![RoleChange::Promote(PeerId(300)), RoleChange::Demote(remove)];
    assert_eq!(of(Action::ChangeMembers(MemberChange::Jointly(roles))), "0101ac02060204ac020505 ");
    assert_eq!(of(Action::ChangeMembers(MemberChange::LeaveJoint)), "0101ac0207 ");
    assert_eq!(of(Action::Split(vec![child])), "0301ac02010101630901ac02 ");
    let prepare = Action::PrepareMerge { target: region(), replicated_index: 7 };
    assert_eq!(of(prepare), format!("0301ac0202{record}07 "));
    let commit = Action::CommitMerge { source: region(), prepared_index: 8, entries };
    assert_eq!(of(commit), format!("0301ac0203{record}08 036f6e6500"));
    assert_eq!(of(Action::RollbackMerge), "0301ac0204 ");
    assert_eq!(of(Action::ComputeChecksum { expires_after_ms: 1 }), "0301ac02050100000000000000 ");
    assert_eq!(of(Action::VerifyChecksum { index: 300, checksum: 1 }), "0301ac0206ac020100000000000000 ");
    let lost = BTreeSet::from([StoreId(2), StoreId(300)]);
    assert_eq!(of(Action::Recover(Recovery { number: 1, lost, ..Recovery::default() })), "0301ac0207010202ac02 ");
}

fn any_key() -> impl Strategy<Value = Bytes> {
    prop::collection::vec(any::<u8>(), 1..6).prop_map(Bytes::from)
}

fn any_region() -> impl Strategy<Value = Region> {
    let peers = prop::collection::btree_map(1..u64::MAX, 1..u64::MAX, 1..4);
    (1..u64::MAX, any_key(), any::<(u64, u64, bool)>(), peers).prop_map(
        |(id, key, (conf_version, version, last), peers)| Region {
            id: RegionId(id),
            end_key: if last { Bytes::new() } else { [&key[..], b"x"].concat().into() },
            start_key: key,
            epoch: Epoch { conf_version, version },
            peers: peers.into_iter().map(|(id, store)| Peer { id: PeerId(id), store: StoreId(store) }).collect(),
            roles: Default::default(),
            merges: Default::default(),
            gc_safe_point: 0,
            space: Space::Data,
        },
    )
}

fn any_batch() -> impl Strategy<Value = WriteBatch> {
    prop::collection::vec((any_key(), any_key()), 0..4).prop_map(|entries| {
        let mut batch = WriteBatch::new();
        entries.iter().for_each(|(key, value)| batch.put(families::TXN_LOCK, key, value));
        batch
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    let child =
        (any_key(), any::<u64>(), prop::collection::vec(any::<u64>(), 0..4)).prop_map(|(start_key, id, peers)| {
            SplitChild { start_key, id: RegionId(id), peers: peers.into_iter().map(PeerId).collect() }
        });
    prop_oneof![
        any_batch().prop_map(Action::Write),
        crate::region::members_test::any_change().prop_map(Action::ChangeMembers),
        prop::collection::vec(child, 0..4).prop_map(Action::Split),
        (any_region(), any::<u64>())
            .prop_map(|(target, replicated_index)| Action::PrepareMerge { target, replicated_index }),
        (any_region(), any::<u64>(), prop::collection::vec(any_key(), 0..4))
            .prop_map(|(source, prepared_index, entries)| Action::CommitMerge { source, prepared_index, entries }),
        Just(Action::RollbackMerge),
        any::<u64>().prop_map(|expires_after_ms| Action::ComputeChecksum { expires_after_ms }),
        any::<(u64, u64)>().prop_map(|(index, checksum)| Action::VerifyChecksum { index, checksum }),
        (any::<u64>(), prop::collection::btree_set(any::<u64>(), 0..4)).prop_map(|(number, lost)| {
            let learners = lost.iter().filter(|store| *store % 3 == 0).map(|store| (RegionId(store / 2), StoreId(9)));
            let learners = learners.collect();
            Action::Recover(Recovery { number, lost: lost.into_iter().map(StoreId).collect(), learners })
        }),
    ]
}

pub(in crate::command) fn any_command() -> impl Strategy<Value = Command> {
    (any::<(u64, u64)>(), any_action())
        .prop_map(|((conf_version, version), action)| Command { epoch: Epoch { conf_version, version }, action })
}

proptest! {
    #[test]
    fn what_is_encoded_decodes_to_the_same(command in any_command()) {
        let (carrier, context, data) = encode(&FAMILIES, command.clone());
        prop_assert_eq!(decode(&FAMILIES, carrier, &context, &data), Ok(Some(command)));
    }

    #[test]
    fn a_truncated_context_is_no_other_command(command in any_command(), cut in any::<prop::sample::Index>()) {
        let (carrier, context, data) = encode(&FAMILIES, command.clone());
        let shorter = &context[..cut.index(context.len())];
        if let Ok(Some(found)) = decode(&FAMILIES, carrier, shorter, &data) {
            prop_assert!(false, "{found:?} was decoded from a part of {command:?}");
        }
    }

    #[test]
    fn any_bytes_are_decoded_or_refused(
        context in prop::collection::vec(any::<u8>(), 0..24),
        format in 0u8..5,
        kind in 0u8..10,
        data in prop::collection::vec(any::<u8>(), 0..64),
    ) {
        let data = Bytes::from(data);
        for context in [context.clone(), [&[format, 1, 3, kind], &context[..]].concat()] {
            for carrier in [Carrier::Normal, Carrier::MemberChange, Carrier::JointChange] {
                if let Ok(Some(command)) = decode(&FAMILIES, carrier, &context, &data) {
                    let _ = decide(&FAMILIES, &region(), command);
                }
            }
        }
    }
}
