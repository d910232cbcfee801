//! One pass over the entries of all streams.

use super::super::read::tests::{World, entry};
use super::*;
use crate::{StreamContents, StreamId, StreamOp};
use bytes::Bytes;
use kontiki_env::fs::{Op, OpenMode};
use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

const STREAMS: u64 = 50;
const RECORDS: u64 = 20;

type Entries = BTreeMap<(u64, u64), Vec<u8>>;

fn append(stream: u64, indices: std::ops::RangeInclusive<u64>) -> StreamOp {
    let first_index = *indices.start();
    StreamOp::Append { stream: StreamId(stream), first_index, entries: indices.map(|at| entry(stream, at)).collect() }
}

fn truncate(stream: u64, through_index: u64) -> StreamOp {
    StreamOp::Truncate { stream: StreamId(stream), through_index }
}

/// So that a new segment begins: of 64 KiB.
fn fill_segment(world: &mut World) {
    let entries = vec![Bytes::from(vec![0; 60 << 10])];
    world.commit(&[StreamOp::Append { stream: StreamId(99), first_index: 1, entries }]);
    world.commit(&[StreamOp::Remove { stream: StreamId(99) }]);
}

/// Some entries in each of many streams, some truncated, some replaced, and a stream that was removed.
fn filled() -> World {
    let mut world = World::new();
    for index in 1..=RECORDS {
        let mut ops: Vec<StreamOp> = (0..STREAMS).map(|id| append(id, index..=index)).collect();
        ops.push(truncate(index, index / 2));
        world.commit(&ops);
    }
    world.commit(&[append(5, 15..=16), StreamOp::Remove { stream: StreamId(30) }, append(31, 21..=23)]);
    world.commit(&[append(31, 22..=22)]);
    fill_segment(&mut world);
    world.commit(&[append(6, 21..=22), truncate(7, RECORDS)]);
    world
}

fn expected(world: &World) -> Entries {
    let mut entries = Entries::new();
    for (id, StreamContents { truncated_through, entries: found, .. }) in world.contents().into_iter().enumerate() {
        entries.extend((truncated_through + 1..).zip(found).map(|(index, entry)| ((id as u64, index), entry.to_vec())));
    }
    entries
}

/// What a pass finds, and how many entries it met.
fn scan(world: &World) -> (Entries, usize) {
    let (mut entries, mut count) = (Entries::new(), 0);
    scan_entries(&world.index, &world.segments, &mut |stream, index, entry| {
        count += 1;
        entries.insert((stream.0, index), entry.to_vec());
        ControlFlow::Continue(())
    })
    .expect("a healthy disk");
    (entries, count)
}

#[test]
fn a_pass_meets_what_reads_of_the_streams_find() {
    let world = filled();
    let expected = expected(&world);
    let truncated: u64 = (1..=RECORDS).map(|index| index / 2).sum::<u64>() + 17;
    assert_eq!(expected.len() as u64, (STREAMS - 1) * RECORDS - 4 + 2 + 2 - truncated);
    let (found, count) = scan(&world);
    assert_eq!((found, count), (expected.clone(), expected.len()));
}

#[test]
fn each_record_is_read_once_however_many_streams_share_it() {
    let world = filled();
    let (bytes, calls) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let of_disk = calls.clone();
    world.machine.fs.fail_next(Op::Read, 1, move |_| {
        of_disk.fetch_add(1, Ordering::Relaxed);
        false
    });
    let mut entries = 0;
    scan_entries(&world.index, &world.segments, &mut |_, _, entry| {
        entries += 1;
        bytes.fetch_add(entry.len() as u64, Ordering::Relaxed);
        ControlFlow::Continue(())
    })
    .expect("a healthy disk");
    // 64 KiB are read at once, so two segments are a few calls; by stream it would be one for each entry.
    let calls = calls.load(Ordering::Relaxed);
    assert!(calls > 0 && calls <= 4 && entries > 500, "{calls} calls for {entries} entries");
}

#[test]
fn what_is_rewritten_and_deleted_meanwhile_is_met_all_the_same() {
    for at in [1, 400] {
        let mut world = filled();
        let expected = expected(&world);
        let (index, segments) = (world.index.clone(), world.segments.clone());
        let oldest = index.lock().oldest_segment().expect("there are entries");
        let (mut found, mut count) = (Entries::new(), 0);
        scan_entries(&index, &segments, &mut |stream, index, entry| {
            count += 1;
            found.insert((stream.0, index), entry.to_vec());
            if count == at {
                world.rewrite(oldest);
                world.segments.delete_oldest(oldest, &world.next).expect("a healthy disk");
            }
            ControlFlow::Continue(())
        })
        .expect("a healthy disk");
        assert_eq!(found, expected, "after {at}");
        assert!(count > expected.len(), "{count} entries were met: some of them twice");
        assert!(index.lock().oldest_segment() > Some(oldest));
    }
}

#[test]
fn a_damaged_record_is_named() {
    let world = filled();
    let oldest = world.index.lock().oldest_segment().expect("there are entries");
    let path = world.segments.path(oldest);
    let env = world.machine.env();
    let file = env.fs.open(&path, OpenMode::ReadWrite).expect("it is there");
    file.write_at(b"!", 32 + 25 + 100).expect("a healthy disk");
    let error = scan_entries(&world.index, &world.segments, &mut |_, _, _| ControlFlow::Continue(()));
    let Err(Error::Corruption { file, offset, .. }) = error else { panic!("{error:?}") };
    assert_eq!((file, offset), (path, 32));
}

#[test]
fn a_visit_ends_the_pass() {
    let world = filled();
    let mut count = 0;
    let ended = scan_entries(&world.index, &world.segments, &mut |_, _, _| {
        count += 1;
        if count == 7 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    });
    assert!(ended.is_ok() && count == 7);
}
