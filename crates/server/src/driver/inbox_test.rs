use super::*;
use futures::FutureExt;

fn inbox() -> Arc<Inbox> {
    Arc::new(Inbox::new(Arc::default()))
}

#[test]
fn a_permit_is_given_back_with_its_reply() {
    let inbox = inbox();
    for _ in 0..3 * REQUESTS_MAX {
        let (reply, _receiver) = Reply::<u64>::new(inbox.admit(10).expect("each is answered before the next"));
        reply.send(Ok(1));
    }
    assert_eq!(inbox.requests.load(Ordering::Relaxed), 0);
    assert_eq!(inbox.request_bytes.load(Ordering::Relaxed), 0);
}

#[test]
fn beyond_the_bound_requests_are_refused_as_busy() {
    let inbox = inbox();
    let permits: Vec<Permit> = (0..REQUESTS_MAX).map(|_| inbox.admit(0).expect("below the bound")).collect();
    assert!(matches!(inbox.admit(0), Err(NodeError::Busy(_))));
    assert_eq!(inbox.counters.busy.get(), 1);
    drop(permits);
    assert!(inbox.admit(PROPOSAL_BYTES_MAX + 1).is_ok(), "a single large request has its own limits");
}

#[test]
fn beyond_the_bound_messages_are_dropped_and_counted() {
    let inbox = inbox();
    let large = Bytes::from(vec![0; MESSAGE_BYTES_MAX]);
    inbox.push_message(StoreId(2), large.clone());
    inbox.push_message(StoreId(2), Bytes::from_static(b"one byte too many"));
    assert_eq!(inbox.counters.messages_dropped.get(), 1);
    assert_eq!(inbox.drain().len(), 1);
    inbox.push_message(StoreId(2), large);
    assert_eq!(inbox.drain().len(), 1, "draining releases the bound");
}

#[test]
fn closing_answers_what_waits_and_what_comes_later() {
    let inbox = inbox();
    let wakes = Arc::new(AtomicUsize::new(0));
    let counted = wakes.clone();
    inbox.set_waker(Box::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    }));
    let barrier = || {
        let (reply, receiver) = Reply::new(inbox.admit(0).expect("admitted"));
        inbox.push(Input::Barrier { region: RegionId(2), epoch: Epoch::default(), reply });
        receiver
    };
    let (first, second) = (barrier(), barrier());
    assert_eq!(wakes.load(Ordering::Relaxed), 1, "woken when the queue becomes non-empty");
    inbox.close();
    let third = barrier();
    for receiver in [first, second, third] {
        assert!(receiver.now_or_never().expect("resolved").is_err(), "canceled, not forgotten");
    }
}
