use super::*;
use kontiki_env::clock::{SimClock, VirtualTime};

const US: Duration = Duration::from_micros(1);

#[test]
fn what_is_timed_is_recorded_on_the_clock_given() {
    let time = VirtualTime::default();
    let recorder = Recorder::new(Arc::new(SimClock::new(time.clone())), Sampler::new(1), HotKeys::off());
    let started = recorder.start_sampled();
    time.advance_to(8 * US);
    recorder.end(&recorder.get, started);
    let flush = || {
        time.advance_to(108 * US);
        Ok(())
    };
    recorder.time(&recorder.flush, flush).unwrap();
    let failed: Result<()> = recorder.time(&recorder.flush, || Err(crate::Error::Closed));
    assert!(failed.is_err(), "what fails is not recorded");
    let latencies = recorder.latencies();
    assert_eq!((latencies.get.count(), latencies.get.sum()), (1, 8 * US));
    assert_eq!((latencies.flush.count(), latencies.flush.max()), (1, 100 * US));
    assert_eq!(latencies.write.count(), 0);
}

#[test]
fn sampled_reads_stand_for_those_they_were_chosen_from() {
    let recorder = Recorder::new(Arc::new(SimClock::new(VirtualTime::default())), Sampler::new(10), HotKeys::off());
    recorder.reads.note_get(true, false);
    recorder.reads.note_table(0, false, false);
    recorder.reads.note_table(1, true, false);
    recorder.reads.note_table(2, true, true);
    recorder.reads.note_get(false, true);
    let reads = recorder.reads();
    assert_eq!((reads.gets, reads.gets_found, reads.gets_in_memtables), (20, 10, 10));
    assert_eq!(reads.levels[0].filters, FilterStats { queries: 10, useful: 10, false_positives: 0 });
    assert_eq!(reads.levels[1].filters, FilterStats { queries: 10, useful: 0, false_positives: 10 });
    assert_eq!((reads.levels[2].tables_read, reads.levels[2].found), (10, 10));
    assert_eq!(reads.filters(), FilterStats { queries: 30, useful: 10, false_positives: 10 });
}

#[test]
fn a_recorder_that_is_off_chooses_nothing() {
    let recorder = Recorder::off(Arc::new(SimClock::new(VirtualTime::default())));
    assert!((0..1000).all(|_| recorder.start_sampled().is_none()));
    recorder.end(&recorder.get, None);
    assert_eq!(recorder.latencies().get.count(), 0);
}
