//! Members that exchange hellos, without a driver.

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn stores(ids: &[u64]) -> Vec<StoreId> {
    ids.iter().copied().map(StoreId).collect()
}

fn incarnation(id: u64, generation: u64) -> Incarnation {
    Incarnation { id, generation, mark: 1_000 * id + generation, replacement: 0 }
}

fn node(store: u64, own: Incarnation, is_formed: bool, known: &[(u64, Incarnation)]) -> Membership {
    let members = stores(&[1, 2, 3]);
    let known = known.iter().map(|(store, known)| (StoreId(*store), *known)).collect();
    Membership::new(StoreId(store), own, is_formed, members.clone(), members, known)
}

fn empty(store: u64, id: u64) -> Membership {
    node(store, incarnation(id, 1), false, &[])
}

/// Delivers one hello and, if it is asked for, the answer; forms the cluster if it has to be formed.
fn say(from: &mut Membership, to: &mut Membership) -> HelloOutcome {
    let outcome = handle_hello(to, from.store, &from.hello(to.store, true));
    assert!(outcome.answer);
    let back = handle_hello(from, to.store, &to.hello(from.store, false));
    assert!(!back.answer || to.state == MembershipState::Member, "hellos are not exchanged without end");
    back
}

fn handle_hello(to: &mut Membership, from: StoreId, hello: &Hello) -> HelloOutcome {
    let outcome = to.handle_hello(from, hello);
    if let Some(members) = &outcome.form {
        to.formed(members);
    }
    outcome
}

/// A formed cluster of the directories 11, 12 and 13 in generation 1, which know each other.
fn cluster() -> Vec<Membership> {
    let mut nodes: Vec<_> = [1, 2, 3].map(|store| empty(store, 10 + store)).into();
    for _ in 0..2 {
        for from in 0..3 {
            for to in (0..3).filter(|to| *to != from) {
                let mut sender = std::mem::replace(&mut nodes[from], empty(1, 99));
                say(&mut sender, &mut nodes[to]);
                nodes[from] = sender;
            }
        }
    }
    assert!(nodes.iter().all(Membership::is_member));
    nodes
}

/// The same directory after a restart, with what it has recorded.
fn restarted(node: &Membership) -> Membership {
    let own = incarnation(node.own.id, node.own.generation + 1);
    Membership::new(node.store, own, true, stores(&[1, 2, 3]), node.voters.clone(), node.known.clone())
}

#[test]
fn a_cluster_is_formed_when_its_founder_has_heard_all_first_members() {
    let (mut one, mut two, mut three) = (empty(1, 11), empty(2, 12), empty(3, 13));
    say(&mut two, &mut three);
    assert!(!two.is_member() && !three.is_member(), "only the founder decides");
    say(&mut one, &mut two);
    assert_eq!(one.state, MembershipState::Forming { waiting_for: stores(&[3]) });
    say(&mut one, &mut three);
    assert!(one.is_member() && !three.is_member());
    say(&mut one, &mut three);
    assert!(three.is_member());
    // The others may learn it from any member.
    say(&mut three, &mut two);
    assert!(two.is_member());
    assert_eq!(two.known.keys().copied().collect::<Vec<_>>(), stores(&[1, 3]));
}

#[test]
fn an_emptied_directory_is_outside_whoever_tells_it() {
    for emptied in 0..3 {
        for teller in (0..3).filter(|teller| *teller != emptied) {
            let mut nodes = cluster();
            let (store, reported_by) = (nodes[emptied].store, nodes[teller].store);
            let mut fresh = empty(store.0, 77);
            say(&mut fresh, &mut nodes[teller]);
            assert_eq!(fresh.state, MembershipState::Replaced { reported_by });
            let outcome = say(&mut nodes[teller], &mut fresh);
            assert_eq!((outcome.form, outcome.record), (None, None), "a member does not forget the directory it knows");
            assert!(nodes[teller].is_member());
        }
    }
}

#[test]
fn two_emptied_directories_do_not_form_a_cluster_without_the_third() {
    let (mut one, mut two) = (empty(1, 77), empty(2, 78));
    for _ in 0..3 {
        say(&mut one, &mut two);
        say(&mut two, &mut one);
    }
    assert_eq!(one.state, MembershipState::Forming { waiting_for: stores(&[3]) });
    let mut three = cluster().remove(2);
    say(&mut one, &mut three);
    say(&mut two, &mut three);
    assert!(
        matches!(one.state, MembershipState::Replaced { .. }) && matches!(two.state, MembershipState::Replaced { .. })
    );
}

#[test]
fn a_restarted_member_takes_part_when_a_majority_has_recorded_its_generation() {
    let nodes = cluster();
    let (mut two, mut three) = (restarted(&nodes[1]), restarted(&nodes[2]));
    assert_eq!(two.state, MembershipState::Confirming);
    let stale = nodes[0].hello(StoreId(2), false);
    two.handle_hello(StoreId(1), &stale);
    assert_eq!(two.state, MembershipState::Confirming, "an earlier generation confirms nothing");
    let outcome = handle_hello(&mut three, StoreId(2), &two.hello(StoreId(3), true));
    assert_eq!(outcome.record, Some(two.own));
    handle_hello(&mut two, StoreId(3), &three.hello(StoreId(2), true));
    assert!(two.is_member(), "two of three");
    handle_hello(&mut three, StoreId(2), &two.hello(StoreId(3), true));
    assert!(three.is_member());
}

#[test]
fn an_older_copy_of_a_directory_learns_that_it_is_one() {
    let mut nodes = cluster();
    let copy = restarted(&nodes[1]);
    // The original continues: two more starts, of which store 1 gets hellos.
    for _ in 0..2 {
        nodes[1] = restarted(&nodes[1]);
        let mut two = std::mem::replace(&mut nodes[1], empty(1, 99));
        say(&mut two, &mut nodes[0]);
        nodes[1] = two;
    }
    let latest = nodes[1].own;
    let mut two = copy;
    assert!(latest.generation > two.own.generation);
    let outcome = say(&mut two, &mut nodes[0]);
    assert_eq!(outcome.outdated_by, Some(latest));
    assert!(!two.is_member());
    assert_eq!(nodes[0].known[&StoreId(2)], latest, "the member keeps its record");
}

#[test]
fn two_copies_that_count_on_alike_are_told_apart_by_their_marks() {
    let mut nodes = cluster();
    let original = restarted(&nodes[1]);
    let mut copy = restarted(&nodes[1]);
    copy.own.mark += 1;
    let mut two = original;
    say(&mut two, &mut nodes[0]);
    assert!(two.is_member());
    let outcome = say(&mut copy, &mut nodes[0]);
    assert_eq!(outcome.outdated_by, Some(two.own));
}

#[test]
fn an_older_copy_that_was_confirmed_stops_when_it_meets_who_knows_better() {
    let mut nodes = cluster();
    let mut copy = restarted(&nodes[1]);
    let mut original = restarted(&restarted(&nodes[1]));
    say(&mut original, &mut nodes[0]);
    // Store 3 was away and knows nothing of it.
    say(&mut copy, &mut nodes[2]);
    assert!(copy.is_member());
    let outcome = say(&mut nodes[0], &mut copy);
    assert!(outcome.answer, "a member that knows a later generation answers, asked or not");
    let outcome = handle_hello(&mut copy, StoreId(1), &nodes[0].hello(StoreId(2), false));
    assert_eq!(outcome.outdated_by, Some(original.own));
}

#[test]
fn a_member_without_first_regions_joins_and_is_confirmed_like_any_other() {
    let members = stores(&[1, 2, 3, 4]);
    let mut nodes = cluster();
    let new = |own, is_formed| {
        Membership::new(StoreId(4), own, is_formed, members.clone(), stores(&[1, 2, 3]), BTreeMap::new())
    };
    let mut four = new(incarnation(14, 1), false);
    nodes[1].others.push(StoreId(4));
    say(&mut four, &mut nodes[1]);
    assert!(four.is_member());
    // It may have got replicas since: an older copy of its directory must not vote.
    let mut back = new(incarnation(14, 2), true);
    assert!(!back.is_member());
    for node in &mut nodes[..2] {
        node.others.push(StoreId(4));
        say(&mut back, node);
        say(node, &mut back);
    }
    assert!(back.is_member(), "two of three have recorded it");
    // Its directory was lost, and with it what its replicas had promised.
    let mut emptied = new(incarnation(15, 1), false);
    say(&mut nodes[1], &mut emptied);
    assert_eq!(*emptied.state(), MembershipState::Replaced { reported_by: StoreId(2) });
}

#[test]
fn hellos_of_strangers_and_of_nobody_are_ignored() {
    let mut nodes = cluster();
    let hello = nodes[1].hello(StoreId(1), true);
    assert_eq!(nodes[0].handle_hello(StoreId(9), &hello), HelloOutcome::default());
    let zero_id = Hello { own: Incarnation { id: 0, ..hello.own }, ..hello };
    assert_eq!(nodes[0].handle_hello(StoreId(2), &zero_id), HelloOutcome::default());
}

#[test]
fn hellos_are_frequent_only_while_something_is_waited_for() {
    let mut node = empty(1, 11);
    let count = |node: &mut Membership| (0..100).filter(|tenth| node.hello_due(*tenth * SECOND / 10)).count();
    assert_eq!(count(&mut node), 50);
    let mut member = cluster().remove(0);
    assert_eq!(count(&mut member), 2);
}

/// An empty directory of store 3 whose operator states that the earlier one is lost.
fn replacing(id: u64) -> Membership {
    empty(3, id).may_replace_a_lost_one()
}

#[test]
fn a_directory_takes_the_place_of_a_lost_one_when_its_operator_says_so() {
    let mut nodes = cluster();
    let lost = nodes.remove(2);
    let mut new = replacing(99);
    let outcome = new.handle_hello(StoreId(1), &nodes[0].hello(StoreId(3), false));
    assert!(outcome.join.is_none(), "one of three is not a majority");
    let without_data = Hello { has_data: false, ..nodes[1].hello(StoreId(3), false) };
    assert!(new.handle_hello(StoreId(2), &without_data).join.is_none(), "one that lost its data, too, does not count");
    let outcome = new.handle_hello(StoreId(2), &nodes[1].hello(StoreId(3), false));
    let join = outcome.join.expect("it joins");
    assert_eq!((join.own.id, join.own.replacement), (99, 1));
    new.joined(&join);
    assert_eq!(new.state, MembershipState::Confirming, "the others have yet to record it");
    for node in &mut nodes {
        let outcome = node.handle_hello(StoreId(3), &new.hello(node.store, true));
        assert_eq!(outcome.record, Some(new.own));
        assert_eq!(node.replacement_of(StoreId(3)), Some(99));
        new.handle_hello(node.store, &node.hello(StoreId(3), false));
    }
    assert!(new.is_member());

    // The lost directory comes back after all: it is notified, whether it is started again or was only cut off.
    for mut lost in [restarted(&lost), lost] {
        let outcome = nodes[0].handle_hello(StoreId(3), &lost.hello(StoreId(1), true));
        assert!(outcome.answer && outcome.record.is_none());
        assert!(lost.handle_hello(StoreId(1), &nodes[0].hello(StoreId(3), false)).is_replaced);
        assert_eq!(nodes[0].replacement_of(StoreId(3)), Some(99));
    }
    // The new one after a restart: an ordinary member, and again recognised when it is copied.
    let old_copy = restarted(&new);
    let mut later = restarted(&restarted(&new));
    later.own.replacement = 1;
    for node in &mut nodes {
        say(&mut later, node);
    }
    assert!(later.is_member());
    let mut old_copy = old_copy;
    old_copy.own.replacement = 1;
    assert!(old_copy.handle_hello(StoreId(1), &nodes[0].hello(StoreId(3), false)).outdated_by.is_some());
}

#[test]
fn a_second_loss_is_a_second_replacement() {
    let mut nodes = cluster();
    for (id, count) in [(99, 1), (100, 2)] {
        let mut new = replacing(id);
        assert!(new.handle_hello(StoreId(1), &nodes[0].hello(StoreId(3), false)).join.is_none());
        let outcome = new.handle_hello(StoreId(2), &nodes[1].hello(StoreId(3), false));
        let join = outcome.join.expect("it joins");
        assert_eq!(join.own.replacement, count);
        new.joined(&join);
        for node in &mut nodes[..2] {
            assert_eq!(node.handle_hello(StoreId(3), &new.hello(node.store, true)).record, Some(new.own));
        }
    }
}

#[test]
fn the_operators_word_changes_nothing_where_nothing_was_lost() {
    // Empty members of a cluster that is being formed.
    let (mut one, mut two) = (empty(1, 11), empty(2, 12));
    let mut three = replacing(13);
    say(&mut two, &mut three);
    say(&mut one, &mut two);
    say(&mut three, &mut one);
    assert!(one.is_member());
    say(&mut one, &mut three);
    assert!(three.is_member() && three.own.replacement == 0);
    // Without it the directory does not take part.
    let mut nodes = cluster();
    let mut new = empty(3, 99);
    let outcome = new.handle_hello(StoreId(1), &nodes[0].hello(StoreId(3), false));
    assert_eq!((outcome.join, &new.state), (None, &MembershipState::Replaced { reported_by: StoreId(1) }));
    assert!(nodes.iter_mut().all(|node| node.replacement_of(StoreId(3)).is_none()));
}

fn record(number: u64, lost: &[u64]) -> RecoveryRecord {
    RecoveryRecord { number, lost: lost.to_vec(), ..RecoveryRecord::default() }
}

/// A directory that is left, at its start after an unsafe recovery.
fn recovered(node: &Membership, number: u64, lost: &[u64]) -> Membership {
    let own = incarnation(node.own.id, node.own.generation + 1);
    let mut known = node.known.clone();
    for store in lost.iter().copied().map(StoreId) {
        known.insert(store, Incarnation::lost(known.get(&store).copied()));
    }
    let members = stores(&[1, 2, 3]);
    Membership::new(node.store, own, true, members, node.voters.clone(), known).after(record(number, lost))
}

#[test]
fn the_last_of_three_takes_part_alone_after_an_unsafe_recovery() {
    let nodes = cluster();
    assert!(!restarted(&nodes[0]).is_member());
    let one = recovered(&nodes[0], 1, &[2, 3]);
    assert!(one.is_member());
    assert!([2, 3].iter().all(|store| one.replacement_of(StoreId(*store)).is_none()), "no directory is there yet");
}

#[test]
fn a_lost_directory_that_comes_back_stops_and_counts_for_nothing() {
    let nodes = cluster();
    for restart in [false, true] {
        let mut one = recovered(&nodes[0], 1, &[2, 3]);
        let mut two = if restart { restarted(&nodes[1]) } else { recovered(&nodes[1], 0, &[]) };
        let before = one.known.clone();
        let outcome = one.handle_hello(StoreId(2), &two.hello(StoreId(1), true));
        assert_eq!(outcome, HelloOutcome { answer: true, ..HelloOutcome::default() });
        assert_eq!(one.known, before);
        let outcome = two.handle_hello(StoreId(1), &one.hello(StoreId(2), false));
        assert!(outcome.is_lost && !outcome.is_replaced && outcome.recovery_differs.is_none());
    }
}

#[test]
fn directories_that_are_left_say_the_same_of_lost_stores() {
    let nodes = cluster();
    let exchange = |mut one: Membership, mut two: Membership| {
        let first = one.handle_hello(StoreId(2), &two.hello(StoreId(1), true));
        let second = two.handle_hello(StoreId(1), &one.hello(StoreId(2), true));
        assert!(!first.is_lost && !second.is_lost);
        assert!(first.record.is_none() || first.recovery_differs.is_none(), "nothing is recorded of one that differs");
        (first.recovery_differs, second.recovery_differs)
    };
    let one = || recovered(&nodes[0], 1, &[3]);
    assert_eq!(exchange(one(), recovered(&nodes[1], 1, &[3])), (None, None));
    // Not recovered yet: it stops, and the other one does not.
    assert_eq!(exchange(one(), restarted(&nodes[1])), (None, Some(record(1, &[3]))));
    // By the same number, something else.
    let other = || {
        let mut two = recovered(&nodes[1], 1, &[3]);
        two.recovery.lost = vec![3, 4];
        two
    };
    assert_eq!(exchange(one(), other()), (Some(record(1, &[3, 4])), Some(record(1, &[3]))));
}

#[test]
fn directories_that_call_each_other_lost_both_stop() {
    let nodes = cluster();
    let (mut one, mut two) = (recovered(&nodes[0], 1, &[2, 3]), recovered(&nodes[1], 1, &[1, 3]));
    let outcome = one.handle_hello(StoreId(2), &two.hello(StoreId(1), true));
    assert_eq!(outcome.recovery_differs, Some(record(1, &[1, 3])));
    let outcome = two.handle_hello(StoreId(1), &one.hello(StoreId(2), true));
    assert_eq!(outcome.recovery_differs, Some(record(1, &[2, 3])));
    // By a higher number one of them goes on, and the other one stops.
    let mut two = recovered(&nodes[1], 2, &[1, 3]);
    let outcome = one.handle_hello(StoreId(2), &two.hello(StoreId(1), true));
    assert_eq!(outcome.recovery_differs, Some(record(2, &[1, 3])));
    let outcome = two.handle_hello(StoreId(1), &one.hello(StoreId(2), true));
    assert_eq!(outcome.recovery_differs, None);
}

#[test]
fn empty_directories_take_the_places_of_lost_ones_one_after_the_other() {
    let nodes = cluster();
    let mut one = recovered(&nodes[0], 1, &[2, 3]);
    let fresh = |store, id| empty(store, id).may_replace_a_lost_one();
    let mut three = fresh(3, 99);
    let join = three.handle_hello(StoreId(1), &one.hello(StoreId(3), false)).join.expect("it joins");
    assert_eq!(join.recovery, record(1, &[2, 3]));
    three.joined(&join);
    assert_eq!(one.handle_hello(StoreId(3), &three.hello(StoreId(1), true)).record, Some(three.own));
    assert_eq!(one.replacement_of(StoreId(3)), Some(99));
    assert!(!three.is_member());
    assert!(three.handle_hello(StoreId(1), &one.hello(StoreId(3), false)).recovery_differs.is_none());
    assert!(three.is_member());

    // Now two count, and both are needed.
    let mut two = fresh(2, 98);
    assert!(two.handle_hello(StoreId(1), &one.hello(StoreId(2), false)).join.is_none());
    let join = two.handle_hello(StoreId(3), &three.hello(StoreId(2), false)).join.expect("it joins");
    two.joined(&join);
    for node in [&mut one, &mut three] {
        assert_eq!(node.handle_hello(StoreId(2), &two.hello(node.store, true)).record, Some(two.own));
    }
    two.handle_hello(StoreId(1), &one.hello(StoreId(2), false));
    assert!(two.is_member(), "two of three");
    assert!(one.hello(StoreId(2), false).lost.is_empty() && three.hello(StoreId(2), false).lost.is_empty());
    // The directory that was lost is still refused.
    let mut lost = restarted(&nodes[1]);
    assert!(lost.handle_hello(StoreId(3), &three.hello(StoreId(2), false)).is_replaced);
}

#[test]
fn a_store_without_replicas_joins_a_cluster_that_was_recovered() {
    let nodes = cluster();
    let one = recovered(&nodes[0], 1, &[2, 3]);
    let own = incarnation(44, 1);
    let members = stores(&[1, 2, 3, 4]);
    let mut four = Membership::new(StoreId(4), own, false, members, stores(&[1, 2, 3]), BTreeMap::new());
    let outcome = four.handle_hello(StoreId(1), &one.hello(StoreId(4), false));
    assert!(outcome.form.is_none());
    four.joined(&outcome.join.expect("it joins"));
    assert_eq!(four.recovery(), one.recovery());
    assert!(!four.handle_hello(StoreId(1), &one.hello(StoreId(4), false)).is_lost);
}
