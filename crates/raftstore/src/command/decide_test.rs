use super::*;
use crate::command::SplitChild;
use crate::model::families::{self, FAMILIES};
use crate::recovery::Recovery;
use crate::region::{Epoch, Merging, Peer, PeerId, RegionId, Space, StoreId};
use bytes::Bytes;
use kontiki_engine::Family;
use proptest::prelude::*;

fn region() -> Region {
    Region {
        id: RegionId(2),
        start_key: Bytes::from_static(b"b"),
        end_key: Bytes::from_static(b"d"),
        epoch: Epoch { conf_version: 1, version: 3 },
        peers: (1..=3).map(|id| Peer { id: PeerId(id), store: StoreId(10 + id) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn write(family: Family, key: &[u8]) -> Action {
    let mut batch = WriteBatch::new();
    batch.put(family, key, b"v");
    Action::Write(batch)
}

fn child(id: u64, key: &'static [u8]) -> SplitChild {
    let peers = (1..=3).map(|peer| PeerId(100 * id + peer)).collect();
    SplitChild { start_key: Bytes::from_static(key), id: RegionId(id), peers }
}

fn decided(region: &Region, action: Action) -> Result<Change, Refusal> {
    decide(&FAMILIES, region, Command { epoch: region.epoch, action })
}

#[test]
fn a_write_is_checked_again_at_apply() {
    let (epoch, fits) = (region().epoch, || write(families::TXN_LOCK, b"c"));
    let at = |epoch| decide(&FAMILIES, &region(), Command { epoch, action: fits() });
    assert!(matches!(at(epoch), Ok(Change::Write(_))));
    assert!(matches!(at(Epoch { conf_version: 9, ..epoch }), Ok(Change::Write(_))), "membership moves no key");
    assert_eq!(at(Epoch { version: 2, ..epoch }), Err(Refusal::Stale), "an old range");
    for (family, key, why) in [
        (families::DEFAULT, b"d", "the end is exclusive"),
        (families::META, b"c", "not the region's family"),
        (families::PLACEMENT, b"c", "not the region's family"),
    ] {
        assert_eq!(decided(&region(), write(family, key)), Err(Refusal::ForeignKey), "{why}");
    }
}

#[test]
fn a_membership_change_needs_both_versions() {
    let action = || Action::ChangeMembers(MemberChange::Remove(PeerId(2)));
    let Ok(Change::Members { region: changed, .. }) = decided(&region(), action()) else { panic!("it is accepted") };
    assert_eq!((changed.epoch, changed.peers.len()), (Epoch { conf_version: 2, version: 3 }, 2));
    for epoch in [Epoch { conf_version: 0, version: 3 }, Epoch { conf_version: 1, version: 2 }] {
        assert_eq!(decide(&FAMILIES, &region(), Command { epoch, action: action() }), Err(Refusal::Stale));
    }
    let unknown = Action::ChangeMembers(MemberChange::Remove(PeerId(9)));
    assert!(matches!(decided(&region(), unknown), Err(Refusal::Impossible(_))));
}

#[test]
fn a_split_cuts_the_range_at_its_keys() {
    let Ok(Change::Split { region: first, children }) =
        decided(&region(), Action::Split(vec![child(7, b"bb"), child(8, b"c")]))
    else {
        panic!("it is accepted")
    };
    let bounds = |region: &Region| (region.start_key.clone(), region.end_key.clone());
    assert_eq!(bounds(&first), (Bytes::from_static(b"b"), Bytes::from_static(b"bb")));
    assert_eq!(bounds(&children[0]), (Bytes::from_static(b"bb"), Bytes::from_static(b"c")));
    assert_eq!(bounds(&children[1]), (Bytes::from_static(b"c"), Bytes::from_static(b"d")));
    assert_eq!(children[1].peers[2], Peer { id: PeerId(803), store: StoreId(13) });
}

#[test]
fn a_split_that_makes_no_regions_of_the_range_is_refused() {
    let with = |change: fn(&mut SplitChild)| {
        let mut one = child(7, b"c");
        change(&mut one);
        Action::Split(vec![one])
    };
    let cases = [
        ("without children", Action::Split(Vec::new())),
        ("keys that do not ascend", Action::Split(vec![child(7, b"c"), child(8, b"bb")])),
        ("the same key twice", Action::Split(vec![child(7, b"c"), child(8, b"c")])),
        ("at the start key", with(|one| one.start_key = Bytes::from_static(b"b"))),
        ("at the end key", with(|one| one.start_key = Bytes::from_static(b"d"))),
        ("a key that is too long", with(|one| one.start_key = vec![b'c'; 5000].into())),
        ("the region's own identity", with(|one| one.id = RegionId(2))),
        ("no identity", with(|one| one.id = RegionId(0))),
        ("the same identity twice", Action::Split(vec![child(7, b"bb"), child(7, b"c")])),
        ("a replica too few", with(|one| one.peers.truncate(2))),
        ("a replica that exists", with(|one| one.peers[0] = PeerId(1))),
        ("the same replica twice", with(|one| one.peers[0] = one.peers[1])),
    ];
    for (why, action) in cases {
        assert!(matches!(decided(&region(), action), Err(Refusal::Impossible(_))), "{why}");
    }
    let system = Region { space: Space::System, ..region() };
    assert!(matches!(decided(&system, Action::Split(vec![child(7, b"c")])), Err(Refusal::Impossible(_))));
}

#[test]
fn an_unsafe_recovery_needs_the_members_that_its_proposer_saw() {
    let recovery = Recovery { number: 1, lost: [StoreId(2), StoreId(3)].into(), ..Recovery::default() };
    let peers = (1..4).map(|id| Peer { id: PeerId(id), store: StoreId(id) }).collect();
    let before = Region { peers, ..region() };
    let Ok(Change::Recovered { region: after }) = decided(&before, Action::Recover(recovery.clone())) else {
        panic!("it is accepted")
    };
    assert_eq!((after.peers.len(), after.epoch.version), (1, before.epoch.version));
    let late = Command { epoch: before.epoch, action: Action::Recover(recovery.clone()) };
    assert_eq!(decide(&FAMILIES, &after, late), Err(Refusal::Stale));
    assert!(matches!(decided(&after, Action::Recover(recovery)), Err(Refusal::Impossible(_))), "it is done");
    let write = Command { epoch: before.epoch, action: write(families::DEFAULT, b"c") };
    assert!(decide(&FAMILIES, &after, write).is_ok(), "writes that were under way stay valid");
}

const PREPARED: u64 = 9;

/// The source, as the log entry at [`PREPARED`] leaves it.
fn prepared(source: &Region, target: &Region) -> Region {
    let prepare = Action::PrepareMerge { target: target.clone(), replicated_index: 6 };
    let Ok(Change::MergePrepared { mut region }) = decided(source, prepare) else { panic!("it is accepted") };
    region.merges.preparing.as_mut().expect("prepared").prepared_index = PREPARED;
    region
}

fn commit_of(source: &Region) -> Action {
    Action::CommitMerge { source: source.clone(), prepared_index: PREPARED, entries: Vec::new() }
}

#[test]
fn a_merge_is_committed_only_in_its_target_as_the_preparation_saw_it() {
    let target = Region { id: RegionId(5), start_key: region().end_key, end_key: Bytes::new(), ..region() };
    let source = prepared(&region(), &target);
    let Ok(Change::MergeCommitted { region: merged, .. }) = decided(&target, commit_of(&source)) else {
        panic!("it is accepted")
    };
    assert_eq!((&merged.start_key, &merged.end_key), (&region().start_key, &target.end_key));
    assert_eq!(merged.epoch, Epoch { conf_version: 1, version: 5 });
    assert!(merged.has_absorbed(source.id) && merged.merging().is_none());
    assert!(matches!(decided(&target, commit_of(&region())), Err(Refusal::Impossible(_))), "it is not prepared");
    for change in [Epoch { conf_version: 2, version: 3 }, Epoch { conf_version: 1, version: 4 }] {
        let changed = Region { epoch: change, ..target.clone() };
        assert!(matches!(decided(&changed, commit_of(&source)), Err(Refusal::Impossible(_))), "{change:?}");
        let late = Command { epoch: target.epoch, action: commit_of(&source) };
        assert_eq!(decide(&FAMILIES, &changed, late), Err(Refusal::Stale));
    }
    assert_eq!(
        decided(&merged, commit_of(&source)).map(|_| ()),
        Err(Refusal::Impossible("regions that are merged are neighbours"))
    );
}

#[test]
fn the_source_of_a_merge_accepts_nothing_but_its_rollback() {
    let neighbour = Region { id: RegionId(5), start_key: region().end_key, end_key: Bytes::new(), ..region() };
    let target = neighbour.clone();
    let prepare = Action::PrepareMerge { target: neighbour, replicated_index: 6 };
    let source = prepared(&region(), &target);
    assert_eq!(source.epoch, Epoch { conf_version: 2, version: 4 });
    let (target, target_epoch) = (target.id, target.epoch);
    let merging = Merging { target, target_epoch, replicated_index: 6, prepared_index: PREPARED };
    assert_eq!(source.merging(), Some(&merging));
    let at_source = |action| decided(&source, action);
    for action in [
        write(families::DEFAULT, b"c"),
        prepare,
        Action::Split(vec![child(7, b"c")]),
        Action::ComputeChecksum { expires_after_ms: 1 },
    ] {
        assert_eq!(at_source(action), Err(Refusal::Merging));
    }
    let Ok(Change::MergeRolledBack { region: again }) = at_source(Action::RollbackMerge) else { panic!("accepted") };
    assert_eq!(again, Region { epoch: Epoch { conf_version: 2, version: 5 }, ..region() });
    assert_eq!(decided(&again, Action::RollbackMerge), Err(Refusal::Merging), "there is no merge");
}

#[test]
fn only_neighbours_on_the_same_stores_are_merged() {
    let neighbour = Region { id: RegionId(5), start_key: region().end_key, end_key: Bytes::new(), ..region() };
    let cases = [
        ("itself", region()),
        ("no neighbour", Region { start_key: Bytes::from_static(b"e"), ..neighbour.clone() }),
        ("another space", Region { space: Space::System, ..neighbour.clone() }),
        ("other stores", Region { peers: vec![Peer { id: PeerId(9), store: StoreId(9) }], ..neighbour }),
        ("the ends of the key space do not meet", {
            let last = Region { end_key: Bytes::new(), ..region() };
            Region { id: RegionId(5), start_key: Bytes::new(), end_key: Bytes::new(), ..last }
        }),
    ];
    for (why, other) in cases {
        let prepare = Action::PrepareMerge { target: other.clone(), replicated_index: 6 };
        let commit = Action::CommitMerge { source: other, prepared_index: 6, entries: Vec::new() };
        assert!(matches!(decided(&region(), prepare), Err(Refusal::Impossible(_))), "prepare: {why}");
        assert!(matches!(decided(&region(), commit), Err(Refusal::Impossible(_))), "commit: {why}");
    }
}

/// One step of the property test: what to do, to which of the regions, with which numbers.
type Step = (u8, prop::sample::Index, Vec<u8>, u8);

fn action_of(step: &Step, regions: &[Region], next: &mut u64) -> (usize, Action) {
    let (kind, which, bytes, number) = step;
    let at = which.index(regions.len());
    let region = &regions[at];
    *next += 1000;
    let action = match kind % 9 {
        0 => write(families::DEFAULT, bytes),
        1 => Action::ChangeMembers(MemberChange::Add(Peer { id: PeerId(*next), store: StoreId(u64::from(*number)) })),
        2 => Action::ChangeMembers(MemberChange::Remove(region.peers[usize::from(*number) % region.peers.len()].id)),
        3 | 4 => {
            let children = (1..=1 + u64::from(*number % 3)).map(|i| SplitChild {
                start_key: [&region.start_key[..], bytes, &[i as u8]].concat().into(),
                id: RegionId(*next + 100 * i),
                peers: (1..=region.peers.len() as u64).map(|peer| PeerId(*next + 100 * i + peer)).collect(),
            });
            Action::Split(children.collect())
        }
        5 => {
            let target = regions[(at + usize::from(*number % 2)) % regions.len()].clone();
            Action::PrepareMerge { target, replicated_index: 3 }
        }
        6 => Action::RollbackMerge,
        7 => Action::SetGcSafePoint(u64::from(*number)),
        _ => {
            let mut sources = regions.iter().filter(|source| source.merging().is_some());
            commit_of(sources.find(|source| source.id != region.id).unwrap_or(region))
        }
    };
    (at, action)
}

/// Regions that tile the key space, and what one accepted command makes of them.
fn perform(regions: &mut Vec<Region>, at: usize, change: Change, action: &Action) {
    let before = regions[at].clone();
    let grown = |after: &Region| {
        (after.epoch.conf_version - before.epoch.conf_version, after.epoch.version - before.epoch.version)
    };
    match change {
        Change::Write(_) | Change::ComputeChecksum { .. } | Change::VerifyChecksum { .. } => {}
        Change::GcSafePoint { region } => {
            assert_eq!(grown(&region), (0, 0));
            assert!(region.gc_safe_point > before.gc_safe_point, "it only grows");
            regions[at] = region;
        }
        Change::Recovered { .. } => panic!("no store is lost"),
        Change::Members { region, .. } => {
            assert_eq!(grown(&region), (1, 0));
            regions[at] = region;
        }
        Change::Split { region, children } => {
            assert_eq!(grown(&region), (0, children.len() as u64));
            assert!(children.iter().all(|child| child.epoch == region.epoch));
            assert!(children.iter().all(|child| child.gc_safe_point == region.gc_safe_point), "each has the same data");
            regions[at] = region;
            regions.splice(at + 1..at + 1, children);
        }
        Change::MergePrepared { mut region } => {
            assert_eq!(grown(&region), (1, 1));
            region.merges.preparing.as_mut().expect("prepared").prepared_index = PREPARED;
            regions[at] = region;
        }
        Change::MergeRolledBack { region } => {
            assert_eq!(grown(&region), (0, 1));
            regions[at] = region;
        }
        Change::MergeCommitted { region, .. } => {
            let Action::CommitMerge { source, .. } = action else { panic!("only a commit ends a merge") };
            assert!(region.epoch.version > source.epoch.version && grown(&region).1 >= 1);
            assert_eq!(grown(&region).0, 0);
            assert_eq!(region.gc_safe_point, before.gc_safe_point.max(source.gc_safe_point));
            regions[at] = region;
            let source = regions.iter().position(|other| other.id == source.id).expect("one of them");
            regions.remove(source);
        }
    }
}

fn assert_tiles(regions: &[Region]) {
    assert!(regions[0].start_key.is_empty() && regions[regions.len() - 1].end_key.is_empty());
    for pair in regions.windows(2) {
        assert_eq!(pair[0].end_key, pair[1].start_key, "each begins where the one before it ends");
        assert!(pair[0].start_key < pair[0].end_key, "none is empty");
    }
    for (i, one) in regions.iter().enumerate() {
        assert!(regions[i + 1..].iter().all(|other| !one.overlaps(other)));
    }
}

proptest! {
    #[test]
    fn regions_tile_the_key_space_through_any_commands(
        steps in prop::collection::vec(any::<Step>(), 1..60),
    ) {
        let whole = Region { start_key: Bytes::new(), end_key: Bytes::new(), ..region() };
        let (mut regions, mut next) = (vec![whole], 1000);
        for step in &steps {
            let (at, action) = action_of(step, &regions, &mut next);
            let region = regions[at].clone();
            let command = Command { epoch: region.epoch, action: action.clone() };
            let decided = decide(&FAMILIES, &region, command.clone());
            prop_assert_eq!(&decided, &decide(&FAMILIES, &region, command.clone()), "it is a function");
            let mut stale = command;
            stale.epoch.version -= 1;
            prop_assert_eq!(decide(&FAMILIES, &region, stale), Err(Refusal::Stale));
            if let Ok(change) = decided {
                perform(&mut regions, at, change, &action);
            }
            assert_tiles(&regions);
        }
    }

    #[test]
    fn merging_the_parts_of_a_split_gives_its_range_back(
        keys in prop::collection::btree_set(prop::collection::vec(any::<u8>(), 1..4), 1..4),
        backward in any::<bool>(),
    ) {
        let whole = Region { start_key: Bytes::new(), end_key: Bytes::new(), ..region() };
        let children = keys.into_iter().zip(7..).map(|(key, id)| SplitChild { start_key: key.into(), ..child(id, b"") });
        let Ok(Change::Split { region: first, children }) = decided(&whole, Action::Split(children.collect())) else {
            return Err(TestCaseError::fail("it is accepted"));
        };
        let mut parts: Vec<Region> = [first].into_iter().chain(children).collect();
        if backward {
            parts.reverse();
        }
        let mut target = parts.remove(0);
        for part in parts {
            let commit = commit_of(&prepared(&part, &target));
            let Ok(Change::MergeCommitted { region, .. }) = decided(&target, commit) else {
                return Err(TestCaseError::fail("it is committed"));
            };
            target = region;
        }
        prop_assert_eq!((&target.start_key, &target.end_key), (&whole.start_key, &whole.end_key));
    }
}
