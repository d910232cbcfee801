use super::*;
use futures::FutureExt;
use futures::task::noop_waker;
use kontiki_env::rng::Rng;

fn keys(names: &[&'static str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::from_static(name.as_bytes())).collect()
}

fn poll(acquire: &mut Acquire) -> Option<LatchGuard> {
    let waker = noop_waker();
    match acquire.poll_unpin(&mut Context::from_waker(&waker)) {
        Poll::Ready(guard) => Some(guard),
        Poll::Pending => None,
    }
}

#[test]
fn overlapping_commands_run_in_the_order_they_came() {
    let latches = Latches::new();
    let mut first = latches.acquire(keys(&["a", "b"]));
    let mut second = latches.acquire(keys(&["b", "c", "b"]));
    let mut third = latches.acquire(keys(&["c"]));
    let mut apart = latches.acquire(keys(&["d"]));
    let held = poll(&mut first).expect("free");
    assert!(poll(&mut apart).is_some());
    assert!(poll(&mut second).is_none() && poll(&mut third).is_none(), "third came after second on c");
    drop(held);
    let held = poll(&mut second).expect("front of b and c");
    assert!(poll(&mut third).is_none());
    drop(held);
    drop(poll(&mut third).expect("last"));
    assert!(latches.is_empty() && latches.state.lock().queues.is_empty());
}

#[test]
fn giving_up_a_place_lets_the_next_one_pass() {
    let latches = Latches::new();
    let mut first = latches.acquire(keys(&["a"]));
    let held = poll(&mut first).expect("free");
    let second = latches.acquire(keys(&["a", "b"]));
    let mut third = latches.acquire(keys(&["b"]));
    assert!(poll(&mut third).is_none());
    drop(second);
    assert!(poll(&mut third).is_some());
    drop(held);
    assert!(latches.is_empty());
}

#[test]
fn no_keys_means_no_waiting() {
    assert!(poll(&mut Latches::new().acquire(Vec::new())).is_some());
}

#[test]
fn random_commands_never_overlap_and_all_finish() {
    let mut rng = Rng::new(7);
    let latches = Latches::new();
    let names = ["a", "b", "c", "d", "e"];
    let mut waiting: Vec<(Vec<Bytes>, Acquire)> = Vec::new();
    let mut held: Vec<(Vec<Bytes>, LatchGuard)> = Vec::new();
    for _ in 0..5_000 {
        match rng.below(4) {
            0 if waiting.len() < 20 => {
                let wanted: Vec<Bytes> =
                    names.iter().filter(|_| rng.chance(1, 2)).map(|name| Bytes::from_static(name.as_bytes())).collect();
                waiting.push((wanted.clone(), latches.acquire(wanted)));
            }
            1 if !held.is_empty() => drop(held.swap_remove(rng.below(held.len() as u64) as usize)),
            2 if !waiting.is_empty() && rng.chance(1, 4) => {
                drop(waiting.swap_remove(rng.below(waiting.len() as u64) as usize));
            }
            _ => {}
        }
        let mut still = Vec::new();
        for (wanted, mut acquire) in waiting {
            match poll(&mut acquire) {
                Some(guard) => {
                    assert!(held.iter().all(|(other, _)| other.iter().all(|key| !wanted.contains(key))));
                    held.push((wanted, guard));
                }
                None => still.push((wanted, acquire)),
            }
        }
        waiting = still;
    }
    while !waiting.is_empty() || !held.is_empty() {
        held.clear();
        let before = waiting.len();
        waiting.retain_mut(|(wanted, acquire)| match poll(acquire) {
            Some(guard) => {
                held.push((wanted.clone(), guard));
                false
            }
            None => true,
        });
        assert!(waiting.is_empty() || waiting.len() < before, "one command can always run");
    }
    assert!(latches.is_empty());
}
