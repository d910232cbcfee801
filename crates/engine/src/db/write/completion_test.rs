use super::*;

#[test]
fn a_completion_that_pushes_is_not_run_into_and_order_holds() {
    let completions = Arc::new(Completions::default());
    let order: Arc<parking_lot::Mutex<Vec<u64>>> = Arc::default();
    let note = |number: u64| -> Done {
        let order = order.clone();
        Box::new(move |_| order.lock().push(number))
    };
    let (inner, again, last) = (completions.clone(), order.clone(), note(4));
    let pushing: Done = Box::new(move |_| {
        again.lock().push(1);
        inner.expect();
        inner.push([Completion { done: last, result: Ok(0) }]);
        inner.run(); // Returns at once: its caller is running already.
        again.lock().push(2);
    });
    (0..2).for_each(|_| completions.expect());
    completions.push([Completion { done: pushing, result: Ok(0) }, Completion { done: note(3), result: Ok(0) }]);
    completions.run();
    assert_eq!(*order.lock(), [1, 2, 3, 4]);
    assert!(completions.all_answered());
}

#[test]
fn a_completion_that_panics_is_reported_and_does_not_keep_others_from_their_answers() {
    let completions = Completions::default();
    let (waiter, done) = Waiter::new();
    let broken = Completion { done: Box::new(|_| panic!("a broken completion")), result: Ok(1) };
    (0..2).for_each(|_| completions.expect());
    completions.push([broken, Completion { done, result: Ok(2) }]);
    let reported: Arc<parking_lot::Mutex<Vec<String>>> = Arc::default();
    let of_callback = reported.clone();
    completions.set_on_panic(Box::new(move |panic| {
        of_callback.lock().push(panic.downcast_ref::<&str>().expect("a text").to_string());
    }));
    completions.run();
    assert_eq!(*reported.lock(), ["a broken completion"]);
    assert!(completions.all_answered());
    assert!(matches!(waiter.try_take(), Some(Ok(2))));
}

#[test]
fn a_waiter_gets_its_answer_from_another_thread() {
    let (waiter, done) = Waiter::new();
    assert!(waiter.try_take().is_none());
    std::thread::scope(|scope| {
        scope.spawn(move || done(Ok(7)));
        assert_eq!(waiter.wait().expect("answered"), 7);
    });
}
