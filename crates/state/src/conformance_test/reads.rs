//! What views show.

use super::*;

/// Batches of every kind, with flushes, compactions and restarts among them, and views that are kept.
fn views_are_as_the_model_says(node: &mut Node, seed: u64) -> Found {
    let mut rng = Rng::new(seed);
    let (mut model, mut kept) = (Model::default(), Vec::new());
    for number in 0..60 {
        let batch = draw_batch(&mut rng, &FAMILIES, number);
        model.apply(&batch);
        let durability = if rng.chance(1, 4) { Durability::Sync } else { Durability::Derived };
        let written =
            if rng.chance(1, 2) { node.submit(batch, durability) } else { node.engine().commit(batch, durability) };
        written.expect("written");
        match rng.below(10) {
            0 => node.engine().flush().expect("flushed"),
            1 => {
                let family = FAMILIES[rng.below(3) as usize];
                node.engine().compact_range(family, draw_range(&mut rng)).expect("compacted");
            }
            2 => {
                node.engine().flush().expect("flushed");
                kept.clear(); // What is read after a close is refused.
                node.restart();
            }
            3 | 4 => kept.push((node.engine().snapshot(), model.clone())),
            _ => {}
        }
        compare(&node.engine().snapshot(), &model, &mut rng)?;
        for (view, model) in &kept {
            compare(view, model, &mut rng).map_err(|what| format!("a view has changed: {what}"))?;
        }
    }
    Ok(())
}

#[test]
fn views_show_what_was_committed_before_and_never_change() {
    every_engine(views_are_as_the_model_says);
}

#[test]
fn an_iterator_seeks_within_its_range_in_both_directions() {
    every_engine(|node, _| {
        let mut batch = WriteBatch::new();
        (b'a'..=b'i').step_by(2).for_each(|key| batch.put(OTHER, [key], [key]));
        batch.delete(OTHER, b"e");
        node.engine().commit(batch, Durability::Derived).expect("written");
        let view = node.engine().snapshot();
        let found = |direction, to: &[u8]| {
            let mut entries = view.entries(OTHER, Range::region(b"b", b"i"), direction).expect("there");
            entries.seek(to).expect("it moves");
            entries.next().transpose().expect("readable").map(|(key, _)| key[0])
        };
        let forward = [b"a", b"c", b"d", b"g", b"h"].map(|to| found(Direction::Forward, to));
        assert_eq!(forward, [Some(b'c'), Some(b'c'), Some(b'g'), Some(b'g'), None]);
        let backward = [b"a", b"c", b"d", b"g", b"z"].map(|to| found(Direction::Backward, to));
        assert_eq!(backward, [None, Some(b'c'), Some(b'c'), Some(b'g'), Some(b'g')]);
        Ok(())
    });
}

#[test]
fn commits_are_answered_in_order_and_are_in_every_later_view() {
    every_engine(|node, _| {
        let answered: Arc<Mutex<Vec<u64>>> = Arc::default();
        for number in 0..50u64 {
            let mut batch = WriteBatch::new();
            batch.put(Family::DEFAULT, b"number", number.to_be_bytes());
            let answered = answered.clone();
            let done = move |result: kontiki_engine::Result<()>| {
                result.expect("written");
                answered.lock().push(number);
            };
            node.engine().submit(batch, Durability::Derived, Box::new(done));
        }
        node.wait(|| answered.lock().len() == 50);
        assert_eq!(*answered.lock(), (0..50).collect::<Vec<u64>>());
        let found = node.engine().snapshot().get(Family::DEFAULT, b"number").expect("readable");
        assert_eq!(found.as_deref(), Some(&49u64.to_be_bytes()[..]));
        Ok(())
    });
}

#[test]
fn an_engine_knows_its_families_its_size_and_its_directory() {
    every_engine(|node, _| {
        let engine = node.engine();
        assert!(engine.has_family(META) && !engine.has_family(Family(99)));
        assert!(engine.snapshot().get(Family(99), b"").is_err() && engine.write_stall_error().is_none());
        let mut batch = WriteBatch::new();
        batch.put(Family(99), b"key", b"value");
        assert!(engine.commit(batch, Durability::Derived).is_err(), "of a family that is not there");
        let mut batch = WriteBatch::new();
        (0..100u8).for_each(|number| batch.put(OTHER, [number], [number; 100]));
        engine.commit(batch, Durability::Derived).expect("written");
        engine.flush().expect("flushed");
        engine.check_directory().expect("it is there");
        assert!(engine.stats().disk_bytes > 0);
        let parts = engine.snapshot().range_parts(OTHER, Range::all(), kontiki_engine::PartSize::WHOLE);
        assert_eq!(parts.expect("readable").len(), 1);
        Ok(())
    });
}
