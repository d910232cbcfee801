use super::*;

fn wait(waiter: u64, holder: u64) -> WaitFor {
    WaitFor { waiter: TimeStamp(waiter), holder: TimeStamp(holder), key: format!("k{holder}").into() }
}

const NOW: Duration = Duration::from_secs(100);

#[test]
fn the_wait_that_closes_a_circle_is_refused() {
    let mut graph = WaitGraph::default();
    assert_eq!(graph.add(wait(1, 2), NOW), None);
    assert_eq!(graph.add(wait(2, 3), NOW), None);
    assert_eq!(graph.add(wait(4, 2), NOW), None, "two may wait for one");
    assert_eq!(graph.add(wait(3, 1), NOW), Some(vec![wait(1, 2), wait(2, 3)]));
    // It was not added.
    assert_eq!(graph.add(wait(1, 3), NOW), None, "one may wait for two");
    graph.remove(&wait(1, 2));
    graph.remove(&wait(1, 3));
    assert_eq!(graph.add(wait(3, 1), NOW), None);
}

#[test]
fn a_wait_that_was_not_removed_expires() {
    let mut graph = WaitGraph::default();
    assert_eq!(graph.add(wait(1, 2), NOW), None);
    assert!(graph.add(wait(2, 1), NOW + EDGE_AGE_MAX / 2).is_some());
    assert_eq!(graph.add(wait(2, 1), NOW + EDGE_AGE_MAX), None);
}

#[test]
fn waits_beyond_the_limit_are_not_recorded() {
    let mut graph = WaitGraph::default();
    for number in 0..EDGES_MAX as u64 {
        assert_eq!(graph.add(wait(10 + number, 1), NOW), None);
    }
    assert_eq!(graph.add(wait(1, 2), NOW), None);
    assert_eq!(graph.add(wait(2, 1), NOW), None, "the wait of 1 is not known");
    assert_eq!(graph.add(wait(1, 2), NOW + EDGE_AGE_MAX), None);
    assert!(graph.add(wait(2, 1), NOW + EDGE_AGE_MAX).is_some(), "the others have expired");
}
