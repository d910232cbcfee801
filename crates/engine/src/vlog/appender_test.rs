use super::*;
use parking_lot::Condvar;
use std::io;
use std::sync::atomic::AtomicUsize;
use std::time::Duration;

/// Long enough for another thread to come to its sync, if nothing holds it back.
const OVERLAP: Duration = Duration::from_millis(300);

/// A handle as Linux has it: a write-back fails while two syncs are in flight, and only one of them returns the error.
#[derive(Default)]
struct FailsOnce {
    syncs: AtomicUsize,
    second_came: parking_lot::Mutex<bool>,
    changed: Condvar,
}

impl File for FailsOnce {
    fn read_at(&self, _: &mut [u8], _: u64) -> io::Result<usize> {
        Ok(0)
    }

    fn write_at(&self, _: &[u8], _: u64) -> io::Result<()> {
        Ok(())
    }

    fn sync(&self) -> io::Result<()> {
        let mut second_came = self.second_came.lock();
        if self.syncs.fetch_add(1, Ordering::SeqCst) > 0 {
            *second_came = true;
            self.changed.notify_all();
            return Ok(());
        }
        self.changed.wait_while_for(&mut second_came, |came| !*came, OVERLAP);
        Err(io::Error::other("write-back failed"))
    }

    fn allocate(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn set_len(&self, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn len(&self) -> io::Result<u64> {
        Ok(0)
    }

    fn links(&self) -> io::Result<u64> {
        Ok(1)
    }
}

#[test]
fn a_failed_sync_is_known_to_the_one_beside_it() {
    let file = Arc::new(FailsOnce::default());
    let segment = OpenSegment {
        number: 1,
        file: file.clone(),
        capacity: 1000,
        tail: AtomicU64::new(500),
        written: AtomicU64::new(500),
        synced: AtomicU64::new(0),
        sync_failed: Mutex::new(Rank::ValueSync, false),
        pins: AtomicU64::new(0),
    };
    std::thread::scope(|scope| {
        let sealing = scope.spawn(|| segment.sync());
        let committing = scope.spawn(|| segment.sync());
        let outcomes = [sealing, committing].map(|thread| thread.join().expect("no panic").is_err());
        assert_eq!(outcomes, [true, true], "neither the seal nor the commit may call its values durable");
    });
    assert!(segment.sync().is_err() && file.syncs.load(Ordering::SeqCst) == 1, "nor may a later sync");
}
