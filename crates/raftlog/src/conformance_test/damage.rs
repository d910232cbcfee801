//! Bits that change in the files of regions. (The engine's log has such tests of its own.)

use super::*;

/// Changes every bit of a file of a cleanly closed node, one after the other. Returns how many were reported, or what
/// was wrong.
fn flip_every_bit(seed: u64) -> std::result::Result<u64, String> {
    let (script, _) = draw_script(seed, 12);
    let mut node = Node::started(seed, LogChoice::PerGroup);
    assert_eq!(run_script(&node, &script), script.len());
    let expected = node.contents();
    let path = node.files().into_iter().next().expect("a file");
    node.close();
    let length =
        node.machine.fs.open(&path, kontiki_env::fs::OpenMode::Read).and_then(|file| file.len()).expect("there");
    let mut reported = 0;
    for offset in 0..length.min(900) {
        let fs = node.machine.fs.fork(Rng::new(offset));
        fs.flip_bit(&path, offset, (offset % 8) as u8).expect("there");
        let mut copy = Node { machine: SimMachine { fs, ..SimMachine::from_seed(offset) }, up: None, starts: 0 };
        match copy.start(None) {
            Ok(()) if copy.contents() == expected => {}
            Ok(()) => return Err(format!("the change of byte {offset} is not noticed: {:?}", copy.contents())),
            Err(OpenError::Engine(Error::Corruption { file, what, .. })) => {
                assert!(file == path && what.contains("raft log of a region"), "{what}");
                copy.check_finds(&path);
                reported += 1;
            }
            Err(error) => return Err(error.to_string()),
        }
    }
    Ok(reported)
}

impl Node {
    /// After a start that has failed.
    fn check_finds(&self, path: &Path) {
        let checked = check_files(&self.machine.env(), Path::new(DATA)).expect("readable");
        assert!(checked.problems.len() == 1 && checked.problems[0].file == path, "{checked:?}");
    }
}

#[test]
fn damage_is_reported_and_no_torn_end() {
    for seed in 0..4 {
        let reported = flip_every_bit(seed).expect("noticed");
        assert!(reported > 50, "{reported} bytes");
    }
}

#[test]
fn damage_that_is_taken_for_a_torn_end_is_found() {
    planted::set(Some(Bug::DamageIsATornTail));
    let found = flip_every_bit(0);
    planted::set(None);
    found.expect_err("acknowledged commits are lost");
}

#[test]
fn a_read_checks_the_record() {
    let node = Node::started(9, LogChoice::PerGroup);
    node.commit(&TestCommit::of(vec![append(1, 1, vec![Bytes::from_static(b"entry")])])).expect("it fits");
    node.machine.fs.flip_bit(&node.files()[0], 60, 1).expect("there");
    let error = node.log().entries(StreamId(1), 1..2).expect_err("damaged");
    assert_eq!(error.kind(), ErrorKind::Corruption, "{error}");
}
