//! What a killed process leaves.

use super::*;

/// `OTHER` gets numbered derived batches over two families, `META` synced ones: after a kill all synced ones are there,
/// and of the derived ones those up to some number, which is not below the last flush and not below what the flushed
/// view has shown.
fn a_kill_leaves_a_prefix(node: &mut Node, seed: u64) -> Found {
    let mut rng = Rng::new(seed ^ 0x51);
    for round in 0..4u64 {
        let (mut history, mut synced) = (vec![model_of(node)], Vec::new());
        let mut flushed = 0;
        for number in 1..=10 + rng.below(60) {
            let mut batch = draw_batch(&mut rng, &[Family::DEFAULT, OTHER], number);
            batch.put(OTHER, b"number", format!("{round} {number}"));
            let mut model = history.last().expect("never empty").clone();
            model.apply(&batch);
            history.push(model);
            node.submit(batch, Durability::Derived).map_err(|error| error.to_string())?;
            if rng.chance(1, 10) {
                let key = format!("{round} {number}").into_bytes();
                let mut batch = WriteBatch::new();
                batch.put(META, &key, b"synced");
                node.submit(batch, Durability::Sync).map_err(|error| error.to_string())?;
                synced.push(key);
            }
            if rng.chance(1, 20) {
                node.engine().flush().map_err(|error| error.to_string())?;
                flushed = history.len() - 1;
            }
        }
        let shown = position(&history, &*node.engine().flushed_view())?;
        if shown > history.len() - 1 {
            return Err("the flushed view is ahead of what was written".into());
        }
        let shown_below_flush = shown < flushed;
        node.restart();
        let view = node.engine().snapshot();
        let left = position(&history, &view)?;
        if left < flushed || shown_below_flush {
            return Err(format!("{left} derived commits are left, {shown} were shown, {flushed} were flushed"));
        }
        if left < shown {
            return Err(format!("the flushed view has shown {shown} commits, and {left} are left"));
        }
        let is_lost = |key: &&Vec<u8>| view.get(META, key).expect("readable").is_none();
        if let Some(lost) = synced.iter().find(is_lost) {
            return Err(format!("the synced commit of {lost:?} is lost"));
        }
    }
    Ok(())
}

/// What the two families hold now.
fn model_of(node: &Node) -> Model {
    let view = node.engine().snapshot();
    let mut model = Model::default();
    for family in [Family::DEFAULT, OTHER] {
        for (key, value, end) in read(&view, family, &Range::all(), Direction::Forward) {
            model.0.insert((family, key), (value, end));
        }
    }
    model
}

/// The number of batches after which the families were as they are in a view.
fn position(history: &[Model], view: &dyn View) -> Result<usize, String> {
    let of = |model: &Model| [Family::DEFAULT, OTHER].map(|family| model.read(family, &Range::all()));
    let found = [Family::DEFAULT, OTHER].map(|family| read(view, family, &Range::all(), Direction::Forward));
    history.iter().rposition(|model| of(model) == found).ok_or_else(|| format!("no prefix of the commits: {found:?}"))
}

#[test]
fn a_killed_process_leaves_all_synced_commits_and_a_prefix_of_the_derived_ones() {
    every_engine(a_kill_leaves_a_prefix);
    is_found(Bug::NoFlush, a_kill_leaves_a_prefix);
    is_found(Bug::UnflushedInView, a_kill_leaves_a_prefix);
}

#[test]
fn a_flush_raises_the_flushed_sequence_and_shows_in_the_flushed_view() {
    every_engine(|node, _| {
        for number in 0..5u8 {
            let before = node.engine().flushed_sequence();
            let mut batch = WriteBatch::new();
            batch.put(META, b"number", [number]);
            node.engine().commit(batch, Durability::Derived).expect("written");
            let seen = node.engine().flushed_view().get(META, b"number").expect("readable");
            assert_eq!(seen.as_deref(), number.checked_sub(1).as_ref().map(std::slice::from_ref));
            assert_eq!(node.engine().flushed_sequence(), before, "nothing was flushed since");
            node.engine().flush().expect("flushed");
            assert!(node.engine().flushed_sequence() > before);
            let seen = node.engine().flushed_view().get(META, b"number").expect("readable");
            assert_eq!(seen.as_deref(), Some(&[number][..]));
            node.restart();
            let seen = node.engine().flushed_view().get(META, b"number").expect("readable");
            assert_eq!(seen.as_deref(), Some(&[number][..]), "after a restart");
        }
        Ok(())
    });
}

#[test]
fn a_clean_end_loses_only_derived_commits() {
    every_engine(|node, _| {
        for (key, durability) in [(b"derived", Durability::Derived), (b"synced_", Durability::Sync)] {
            let mut batch = WriteBatch::new();
            batch.put(OTHER, key, b"value");
            node.engine().commit(batch, durability).expect("written");
        }
        node.engine().close().expect("a clean end");
        assert!(node.engine().commit(WriteBatch::new(), Durability::Sync).is_err(), "it is closed");
        node.up = None;
        node.start();
        let synced = node.engine().snapshot().get(OTHER, b"synced_").expect("readable");
        assert_eq!(synced.as_deref(), Some(&b"value"[..]));
        Ok(())
    });
}
