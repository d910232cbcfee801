use super::*;
use futures::FutureExt;

/// Records each yield; refuses beyond a bound.
struct Notes(Vec<usize>);

impl YieldPoint for Notes {
    async fn yield_now(&mut self, answer_bytes: usize) -> Result<(), KeyError> {
        self.0.push(answer_bytes);
        if answer_bytes > 1 << 20 { Err(KeyError::Abort("too much".into())) } else { Ok(()) }
    }
}

#[test]
fn a_read_pauses_after_so_many_keys_or_so_many_bytes_and_ends_at_its_bound() {
    let mut notes = Notes(Vec::new());
    let mut progress = ReadProgress::new(&mut notes);
    for _ in 0..2 * SLICE_KEYS {
        progress.passed().now_or_never().unwrap().unwrap();
    }
    progress.added::<u64>(SLICE_BYTES).now_or_never().unwrap().unwrap();
    let ended = (0..100).find(|_| progress.added::<u64>(SLICE_BYTES).now_or_never().unwrap().is_err());
    assert_eq!(ended, Some(2), "the fourth slice of 256 KiB and some bytes exceeds 1 MiB");
    assert_eq!(notes.0[..3], [0, 0, SLICE_BYTES + 8]);
}
