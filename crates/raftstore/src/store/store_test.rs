use super::*;
use crate::error::FaultKind;
use crate::model::MapView;
use crate::model::families::{DEFAULT, FAMILIES, META};
use crate::region::{Epoch, Peer as Replica, PeerId, Space, StoreId};
use kontiki_engine::{StreamContents, StreamId, StreamOp, WriteBatch};
use kontiki_env::rng::Rng;
use proptest::prelude::{any, prop, proptest};
use std::collections::BTreeMap;

const IDENTITY: StoreIdentity = StoreIdentity { cluster: 9, store: StoreId(1) };

fn region(id: u64, stores: u64) -> Region {
    Region {
        id: RegionId(id),
        start_key: Bytes::from(vec![id as u8]),
        end_key: Bytes::from(vec![id as u8 + 1]),
        epoch: Epoch { conf_version: 1, version: 1 },
        peers: (1..=stores).map(|store| Replica { id: PeerId(id * 1000 + store), store: StoreId(store) }).collect(),
        roles: Default::default(),
        merges: Default::default(),
        gc_safe_point: 0,
        space: Space::Data,
    }
}

fn bootstrapped(regions: &[Region]) -> (MapView, Vec<(StreamId, StreamContents)>) {
    let commit = Store::bootstrap(&FAMILIES, &IDENTITY, regions);
    let mut view = MapView::default();
    view.write(&commit.batch);
    let mut streams: BTreeMap<StreamId, StreamContents> = BTreeMap::new();
    for op in commit.streams {
        match op {
            StreamOp::Truncate { stream, through_index } => {
                streams.entry(stream).or_default().truncated_through = through_index;
            }
            StreamOp::State { stream, state } => streams.entry(stream).or_default().state = state,
            other => panic!("{other:?}"),
        }
    }
    (view, streams.into_iter().collect())
}

fn recovered(regions: &[Region]) -> Store {
    let (view, streams) = bootstrapped(regions);
    let mut store = Store::new(Config::default(), &FAMILIES, Rng::new(1));
    store.recover(&view, streams).expect("whole");
    store
}

#[test]
fn what_bootstrap_writes_is_what_recovery_finds() {
    let regions = [region(1, 3), region(2, 3)];
    let store = recovered(&regions);
    assert_eq!(store.identity(), Some(IDENTITY));
    let found: Vec<Region> = store.status().into_iter().map(|status| Region::clone(&status.region)).collect();
    assert_eq!(found, regions);
    let (view, _) = bootstrapped(&regions);
    assert_eq!(meta::identity(META, &view).expect("readable"), Some(IDENTITY));
    assert_eq!(meta::regions(META, &view).expect("readable"), regions);
    assert_eq!(meta::applied_index(META, &view, RegionId(2)).expect("readable"), Some(1));
    assert_eq!(store.readers().regions().len(), 2);
}

/// What version 1 wrote stays readable.
#[test]
fn the_formats_of_meta_and_state_are_what_they_were() {
    let commit = Store::bootstrap(&FAMILIES, &IDENTITY, &[region(1, 1)]);
    let hex = |bytes: &[u8]| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    assert_eq!(
        hex(commit.batch.as_bytes()),
        "01f37f010111010900000000000000010000000000000001f37f09020000000000000001160108011201011a010220012801320508e9071001380101f37f09030000000000000001110101000000000000000100000000000000"
    );
    let StreamOp::State { state, .. } = &commit.streams[1] else { panic!("the state comes second") };
    assert_eq!(hex(state), "010801180120012801");
    let epoch = Epoch { conf_version: 1, version: 300 };
    assert_eq!(hex(&crate::command::encode_write_context(&FAMILIES, epoch, &WriteBatch::new())), "0201ac02");
}

#[test]
fn a_damaged_directory_is_refused_with_the_reason() {
    let recover = |view: &MapView, streams: Vec<(StreamId, StreamContents)>| {
        let error = Store::new(Config::default(), &FAMILIES, Rng::new(1)).recover(view, streams).expect_err("refused");
        error.to_string()
    };
    let (view, streams) = bootstrapped(&[region(1, 3)]);
    assert!(recover(&MapView::default(), vec![]).contains("never bootstrapped"));
    assert!(recover(&view, vec![]).contains("region 1: its log is missing"));
    let mut extra = streams.clone();
    extra.push((StreamId(8), StreamContents::default()));
    assert!(recover(&view, extra).contains("region 8: a log without a region"));
    let mut newer = streams.clone();
    newer[0].1.state = Bytes::from_static(&[2, 8, 1]);
    assert!(recover(&view, newer).contains("format 2"));
    let mut cut = streams.clone();
    cut[0].1.truncated_through = 5;
    assert!(recover(&view, cut).contains("truncated through 5"));
    let mut garbage = streams.clone();
    garbage[0].1.entries = vec![Bytes::from_static(b"\xff\xff")];
    assert!(recover(&view, garbage).contains("entry 2"));
    let mut foreign = view.clone();
    let mut batch = WriteBatch::new();
    meta::put_region(META, &mut batch, &Region { peers: region(1, 3).peers[1..].to_vec(), ..region(1, 3) });
    foreign.write(&batch);
    assert!(recover(&foreign, streams).contains("no peer on this store"));
}

/// Runs a single-voter store's effects at once, until it is quiet.
fn drain(store: &mut Store, view: &mut MapView, now: Duration) -> Vec<(Ticket, Answer)> {
    let mut answers = Vec::new();
    loop {
        let effects = store.poll(now);
        if effects.is_empty() {
            return answers;
        }
        answers.extend(effects.answers);
        if let Some(persist) = effects.persist {
            store.handle(Event::Persisted { batch: persist.id }, now);
        }
        if let Some(apply) = effects.apply {
            view.write(&apply.batch);
            store.handle(Event::Applied { through: apply.id }, now);
        }
    }
}

#[test]
fn one_persist_and_one_apply_serve_all_regions() {
    let regions: Vec<Region> = (1..=20).map(|id| region(id, 1)).collect();
    let mut store = recovered(&regions);
    let (mut view, _) = bootstrapped(&regions);
    drain(&mut store, &mut view, Duration::ZERO);
    for id in 1..=20 {
        let mut batch = WriteBatch::new();
        batch.put(DEFAULT, [id as u8], b"v");
        let epoch = Epoch { conf_version: 1, version: 1 };
        store.handle(Event::Propose { region: RegionId(id), epoch, batch, ticket: Ticket(id) }, Duration::ZERO);
    }
    let effects = store.poll(Duration::ZERO);
    let persist = effects.persist.expect("one");
    assert_eq!(persist.commit.streams.len(), 20);
    store.handle(Event::Persisted { batch: persist.id }, Duration::ZERO);
    let apply = store.poll(Duration::ZERO).apply.expect("one");
    assert_eq!(apply.batch.len(), 40, "twenty puts and twenty applied positions");
    store.handle(Event::Applied { through: apply.id }, Duration::ZERO);
    assert_eq!(store.poll(Duration::ZERO).answers.len(), 20);
    assert_eq!(store.open_tickets(), 0);
}

#[test]
fn ticks_are_counted_by_the_clock() {
    let mut store = recovered(&[region(1, 3)]);
    // A stalled process gets a second of ticks at once: one counts.
    let mut view = MapView::default();
    for now in [0, 10] {
        for _ in 0..100 {
            store.handle(Event::Tick, Duration::from_secs(now));
        }
        drain(&mut store, &mut view, Duration::from_secs(now));
    }
    assert_eq!((store.status()[0].term, store.status()[0].leads), (1, false), "no election came of it");
    for tick in 1..=20 {
        store.handle(Event::Tick, Duration::from_secs(10) + Duration::from_millis(100 * tick));
    }
    assert!(!store.poll(Duration::from_secs(12)).is_empty(), "two seconds of silence are enough for one");
}

#[test]
fn an_unknown_region_is_named() {
    let mut store = recovered(&[region(1, 1)]);
    let mut view = MapView::default();
    let epoch = Epoch { conf_version: 1, version: 1 };
    store.handle(
        Event::Propose { region: RegionId(7), epoch, batch: WriteBatch::new(), ticket: Ticket(1) },
        Duration::ZERO,
    );
    store.handle(Event::ReadBarrier { region: RegionId(7), epoch, ticket: Ticket(2) }, Duration::ZERO);
    let refusal = Answer::Refused(RegionError::RegionNotFound { region: RegionId(7) });
    let answers = drain(&mut store, &mut view, Duration::ZERO);
    assert_eq!(answers, vec![(Ticket(1), refusal.clone()), (Ticket(2), refusal)]);
}

#[test]
fn an_entry_that_is_not_understood_stops_the_store() {
    let (view, mut streams) = bootstrapped(&[region(1, 1)]);
    // A newer version wrote an entry with another header; and, in another run, a membership change.
    for (kind, context) in [(0, &b"\x02"[..]), (2, &b""[..])] {
        let entry = crate::consensus::wire::Entry {
            kind,
            term: 1,
            index: 2,
            data: Bytes::new(),
            context: context.to_vec().into(),
        };
        streams[0].1.entries = vec![entry.encode_to_vec().into()];
        let mut store = Store::new(Config::default(), &FAMILIES, Rng::new(1));
        store.recover(&view, streams.clone()).expect("whole");
        let persist = store.poll(Duration::ZERO).persist.expect("the vote");
        store.handle(Event::Persisted { batch: persist.id }, Duration::ZERO);
        let effects = store.poll(Duration::ZERO);
        assert!(effects.fault.expect("a fault").to_string().contains("upgrade this node"));
        assert!(effects.apply.is_none() && effects.persist.is_none());
        let epoch = Epoch { conf_version: 1, version: 1 };
        store.handle(Event::ReadBarrier { region: RegionId(1), epoch, ticket: Ticket(1) }, Duration::ZERO);
        assert_eq!(store.poll(Duration::ZERO).answers.len(), 1, "later requests are refused");
    }
}

#[test]
fn an_idle_region_costs_no_tick() {
    let regions: Vec<Region> = (1..=100).map(|id| region(id, if id == 7 { 3 } else { 1 })).collect();
    let mut store = recovered(&regions);
    let (mut view, _) = bootstrapped(&regions);
    drain(&mut store, &mut view, Duration::ZERO);
    let ticking = |store: &Store| store.ticking.iter().copied().collect::<Vec<_>>();
    assert!(ticking(&store).is_empty(), "the first tick has not come");
    for now in [Duration::ZERO, Duration::from_millis(100)] {
        store.handle(Event::Tick, now);
        drain(&mut store, &mut view, now);
    }
    assert_eq!(ticking(&store), [RegionId(7)], "it counts to an election");
    let hours_later = Duration::from_secs(7200);
    assert!(store.readers().holds_lease(RegionId(8), hours_later), "a sole voter needs no renewal");

    // A log that can be truncated needs ticks until it is.
    for ticket in 1..=300 {
        let (mut batch, epoch) = (WriteBatch::new(), Epoch { conf_version: 1, version: 1 });
        batch.put(DEFAULT, [8], b"v");
        store.handle(Event::Propose { region: RegionId(8), epoch, batch, ticket: Ticket(ticket) }, Duration::ZERO);
        drain(&mut store, &mut view, Duration::ZERO);
    }
    let applied = meta::applied_indices(META, &view).expect("readable");
    store.handle(Event::Flushed { applied: applied.clone() }, Duration::ZERO);
    drain(&mut store, &mut view, Duration::ZERO);
    assert_eq!(ticking(&store), [RegionId(7), RegionId(8)]);
    for tick in 2..=20 {
        let now = Duration::from_millis(100 * tick);
        store.handle(Event::Tick, now);
        drain(&mut store, &mut view, now);
    }
    assert_eq!(ticking(&store), [RegionId(7)]);
    store.handle(Event::Flushed { applied }, Duration::ZERO);
    assert!(store.dirty.is_empty(), "what was reported before is no work");
}

#[test]
fn a_fault_that_an_event_met_stops_regions_whose_entries_wait_for_applies() {
    let regions = [region(1, 1)];
    let (mut view, streams) = bootstrapped(&regions);
    let config = Config { apply_bytes_max: 1, applying_bytes_max: 1, ..Config::default() };
    let mut store = Store::new(config, &FAMILIES, Rng::new(1));
    store.recover(&view, streams).expect("whole");
    drain(&mut store, &mut view, Duration::ZERO);
    for ticket in 1..=4 {
        let mut batch = WriteBatch::new();
        batch.put(DEFAULT, [1], b"v");
        let epoch = Epoch { conf_version: 1, version: 1 };
        store.handle(Event::Propose { region: RegionId(1), epoch, batch, ticket: Ticket(ticket) }, Duration::ZERO);
    }
    let persist = store.poll(Duration::ZERO).persist.expect("one");
    store.handle(Event::Persisted { batch: persist.id }, Duration::ZERO);
    let apply = store.poll(Duration::ZERO).apply.expect("the first entries; others wait for them");
    store.handle(Event::Applied { through: apply.id }, Duration::ZERO);
    // As another region's install would.
    store.out.fault = Some(Fault { region: RegionId(2), what: "an install failed".into(), kind: FaultKind::Unable });
    let effects = store.poll(Duration::ZERO);
    assert!(effects.fault.expect("a fault").to_string().contains("an install failed"));
    assert!(effects.apply.is_none(), "nothing is applied any more");
    assert!(store.poll(Duration::ZERO).is_empty());
}

#[test]
#[should_panic(expected = "already in use")]
fn a_ticket_is_used_once() {
    let mut store = recovered(&[region(1, 3)]);
    let epoch = Epoch { conf_version: 1, version: 1 };
    let mut single = recovered(&[region(1, 1)]);
    drain(&mut single, &mut MapView::default(), Duration::ZERO);
    for store in [&mut store, &mut single] {
        for _ in 0..2 {
            store.handle(Event::ReadBarrier { region: RegionId(1), epoch, ticket: Ticket(1) }, Duration::ZERO);
        }
    }
}

proptest! {
    #[test]
    fn messages_of_any_bytes_are_survived(list in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 1..8)) {
        let mut store = recovered(&[region(1, 3)]);
        for bytes in list {
            store.handle(Event::Message(bytes.into()), Duration::ZERO);
            store.poll(Duration::ZERO);
        }
    }
}

#[test]
fn regions_that_overlap_are_refused_whatever_their_order() {
    let (mut sound, mut refused) = (0, 0);
    for seed in 0..2_000 {
        let mut rng = Rng::new(seed);
        let count = 1 + rng.below(5);
        let random = |id: u64, rng: &mut Rng| {
            let start = rng.below(12) as u8;
            let end_key = if rng.chance(1, 6) { Bytes::new() } else { vec![start + 1 + rng.below(4) as u8].into() };
            let space = if rng.chance(1, 8) { Space::System } else { Space::Data };
            Region { start_key: vec![start].into(), end_key, space, ..region(id, 3) }
        };
        let regions: Vec<Region> = (1..=count).map(|id| random(id, &mut rng)).collect();
        let overlap = |at: usize| regions[at + 1..].iter().any(|other| other.overlaps(&regions[at]));
        let (mut view, mut streams) = (MapView::default(), Vec::new());
        for region in &regions {
            let alone = std::slice::from_ref(region);
            view.write(&Store::bootstrap(&FAMILIES, &IDENTITY, alone).batch);
            streams.extend(bootstrapped(alone).1);
        }
        let mut store = Store::new(Config::default(), &FAMILIES, Rng::new(1));
        let found = store.recover(&view, streams);
        match (0..regions.len()).any(overlap) {
            true => {
                refused += 1;
                let text = found.expect_err("they overlap").to_string();
                assert!(text.contains("its range overlaps another region's"), "{text}");
            }
            false => {
                sound += 1;
                assert!(found.is_ok(), "seed {seed}: {found:?}, {regions:?}");
            }
        }
    }
    assert!(sound > 300 && refused > 300, "{sound} {refused}");
}
