//! Atomic writes of raw keys, and keys that expire, on several nodes.

use super::several_nodes_test::{DATA, Nodes, context, scheduler};
use super::*;
use futures::FutureExt;
use futures::future::BoxFuture;
use kontiki_engine::{Family, WriteBatch};

/// Sets the key to `value` if it is `expected`; the answer is what it was.
fn swap(
    node: &NodeHandle,
    expected: Option<&'static str>,
    value: &'static str,
) -> BoxFuture<'static, Result<Option<Bytes>, String>> {
    let (scheduler, context) = (scheduler(node), context(node));
    let swapping = async move {
        let latches = scheduler.latches().acquire([Bytes::from_static(b"key")]).await;
        let swapped = scheduler.run_exclusive(&context, latches, |view| {
            let previous = view.get(Family::DEFAULT, b"key")?;
            let mut batch = WriteBatch::new();
            if previous.as_deref() == expected.map(str::as_bytes) {
                batch.put(Family::DEFAULT, b"key", value);
            }
            Ok((previous, batch))
        });
        swapped.await.map_err(|failure| failure.to_string())
    };
    swapping.boxed()
}

#[test]
fn a_swap_of_a_deposed_leader_does_not_happen_after_that_of_the_next_one() {
    let mut nodes = Nodes::start(3, |_, _| {});
    let old = nodes.leader(DATA);
    let handle = nodes.handle(old);
    assert_eq!(nodes.run(swap(&handle, None, "1")), Ok(None));
    // The view is taken by the lease, and the proposal reaches no other node.
    nodes.away = Some(old);
    let mut cut_off = swap(&handle, Some("1"), "lost");
    assert!(cut_off.as_mut().now_or_never().is_none());
    let new = nodes.leader(DATA);
    assert_ne!(new, old);
    let handle = nodes.handle(new);
    assert_eq!(nodes.run(swap(&handle, Some("1"), "2")), Ok(Some("1".into())));
    nodes.away = None;
    assert!(nodes.run(cut_off).is_err(), "it is not said to have happened");
    nodes.until("the old leader to follow", |nodes| nodes.stored(old, b"key").as_deref() == Some(b"2"));
    let leader = nodes.leader(DATA);
    let handle = nodes.handle(leader);
    assert_eq!(nodes.run(swap(&handle, Some("1"), "3")), Ok(Some("2".into())), "and is refused");
}

/// The view is taken in one leadership of this node, the proposal comes in the next one: another leader may have
/// written in between.
#[test]
fn a_view_of_an_earlier_leadership_is_no_reason_for_a_write() {
    let mut nodes = Nodes::start(3, |_, _| {});
    let old = nodes.leader(DATA);
    let handle = nodes.handle(old);
    let context = context(&handle);
    let reader = (handle.clone(), context.clone());
    nodes.run(async move { reader.0.view(&reader.1).await.map(drop) }).expect("it leads");
    nodes.away = Some(old);
    let other = nodes.leader(DATA);
    nodes.away = None;
    nodes.until("the first leader to follow", |nodes| nodes.handle(old).leading_term(DATA).is_none());
    nodes.until("the first leader to lead again", |nodes| {
        nodes.handle(other).transfer_leader(DATA, StoreId(old));
        nodes.handle(old).leading_term(DATA).is_some()
    });
    let mut batch = WriteBatch::new();
    batch.put(Family::DEFAULT, b"key", b"by an old view");
    let proposed = nodes.run(async move { handle.propose(&context, batch).await });
    assert!(proposed.is_err(), "{proposed:?}");
    assert_eq!(nodes.stored(old, b"key"), None);
}

/// Some expire before the comparison, some within the time that it leaves out, some later.
#[test]
fn replicas_with_keys_that_expire_are_found_equal() {
    let mut nodes = Nodes::start(3, |_, _| {});
    let leader = nodes.leader(DATA);
    let handle = nodes.handle(leader);
    let mut batch = WriteBatch::new();
    for (key, after_s) in [("a", 1), ("b", 30), ("c", 100_000)] {
        batch.put_expiring(Family::DEFAULT, key, "v", handle.wall_ms() + 1_000 * after_s);
    }
    batch.put(crate::families::RAW_LOCK, "d", "of another family");
    let writing = (handle.clone(), context(&handle));
    nodes.run(async move { writing.0.propose(&writing.1, batch).await }).expect("written");
    nodes.run_for(Duration::from_secs(2));
    assert_eq!(nodes.stored(leader, b"a"), None);
    let compare = |nodes: &mut Nodes| {
        let leader = nodes.leader(DATA);
        let handle = nodes.handle(leader);
        nodes.run(async move { handle.compare_replicas(DATA).await })
    };
    let outcome = compare(&mut nodes).expect("compared");
    assert!(outcome.is_equal() && outcome.missing.is_empty(), "{outcome:?}");
    // A replica that lost a key that lives on is found.
    let follower = (1..=3).find(|id| *id != leader).expect("three nodes");
    let mut lost = WriteBatch::new();
    lost.delete(Family::DEFAULT, b"c");
    nodes.handle(follower).db().expect("built in").commit(lane::derived(lost)).expect("written");
    let outcome = compare(&mut nodes).expect("compared");
    assert_eq!(outcome.differing, [StoreId(follower)], "{outcome:?}");
}
