use super::*;

#[test]
fn a_store_leads_while_its_log_can_be_written_and_it_is_not_asked_to_stop() {
    let mut leadership = Leadership::new(3, SlowLog::default());
    assert!(leadership.is_able() && leadership.own_priority() == 3);
    leadership.set_writable(false);
    assert!(!leadership.is_able());
    leadership.set_writable(true);
    assert!(leadership.is_able());
    leadership.stop(Duration::from_secs(5));
    leadership.stop(Duration::from_secs(6));
    assert!(!leadership.is_able() && leadership.is_writable());
    assert_eq!(leadership.stopping_since(), Some(Duration::from_secs(5)));
}

#[test]
fn the_last_message_of_a_store_counts() {
    let mut leadership = Leadership::new(0, SlowLog::default());
    let (one, two) = (StoreId(1), StoreId(2));
    assert!(leadership.is_able_elsewhere(one) && leadership.priority(one) == 0, "nothing was heard");
    let said = |store: StoreId, unable_to_lead, leader_priority, can_compare| StoreMessage {
        from_store: store.0,
        unable_to_lead,
        leader_priority,
        can_compare_expiring: can_compare,
        knows_roles: can_compare,
        ..StoreMessage::default()
    };
    leadership.learn(&said(one, true, -4, true));
    leadership.learn(&said(two, false, 7, false));
    assert!(!leadership.is_able_elsewhere(one) && leadership.is_able_elsewhere(two));
    assert_eq!((leadership.priority(one), leadership.priority(two)), (-4, 7));
    assert!(leadership.can_compare_expiring(one) && !leadership.can_compare_expiring(two));
    assert!(leadership.knows_roles(one) && !leadership.knows_roles(two));
    leadership.learn(&said(one, false, 0, false));
    assert!(
        leadership.is_able_elsewhere(one) && leadership.priority(one) == 0 && !leadership.can_compare_expiring(one)
    );
}

#[test]
fn transfers_are_bounded_for_each_tick() {
    let mut leadership = Leadership::new(0, SlowLog::default());
    assert!(!leadership.take_transfer(), "no tick yet");
    leadership.begin_tick(2);
    assert!([true, true, false, false].into_iter().all(|permitted| leadership.take_transfer() == permitted));
    leadership.begin_tick(1);
    assert!(leadership.take_transfer() && !leadership.take_transfer());
}
