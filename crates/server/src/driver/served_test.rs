use super::*;

fn point(number: u64) -> Sample {
    Sample::raw(&number.to_be_bytes(), &number.to_be_bytes())
}

fn number(sample: &Sample) -> u64 {
    u64::from_be_bytes(sample.first.as_ref().try_into().unwrap())
}

/// Serves requests one by one, whose keys are their numbers.
fn serve(served: &Served, numbers: std::ops::Range<u64>) {
    for number in numbers {
        served.count(1, 10, &mut |_| point(number));
    }
}

#[test]
fn everything_is_counted_and_nothing_is_sampled_before_a_sample_begins() {
    let served = Served::new(Rng::new(1));
    served.count(3, 70, &mut |_| panic!("no sample has begun"));
    served.count(1, 5, &mut |_| panic!("no sample has begun"));
    assert_eq!(served.so_far(), (4, 75));
    served.begin_sample();
    serve(&served, 0..5);
    assert_eq!(served.sample().len(), 5, "as few as these are all in it");
    assert_eq!(served.sample()[0].bytes, 10);
    served.end_sample();
    served.count(1, 1, &mut |_| panic!("it has ended"));
    assert!(served.sample().is_empty());
}

#[test]
fn a_sample_is_bounded_and_all_requests_have_the_same_chance() {
    const REQUESTS: u64 = 20_000;
    let mut quarters = [0; 4];
    for seed in 0..50 {
        let served = Served::new(Rng::new(seed));
        served.begin_sample();
        serve(&served, 0..REQUESTS);
        let sample = served.sample();
        assert!((SAMPLES..2 * SAMPLES).contains(&sample.len()), "seed {seed}: {}", sample.len());
        sample.iter().for_each(|sample| quarters[(number(sample) * 4 / REQUESTS) as usize] += 1);
    }
    let mean: u64 = quarters.iter().sum::<u64>() / 4;
    assert!(quarters.iter().all(|count| count.abs_diff(mean) < mean / 5), "{quarters:?}");
}

#[test]
fn few_requests_of_many_ask_for_their_keys() {
    let served = Served::new(Rng::new(3));
    served.begin_sample();
    let mut asked = 0;
    for number in 0..100_000 {
        served.count(1, 1, &mut |_| {
            asked += 1;
            point(number)
        });
    }
    // 256, and 128 for each of the ten times that the strata became longer.
    assert!(asked < 2_000, "{asked}");
}

#[test]
fn the_keys_of_a_batch_are_sampled_as_if_they_had_come_alone() {
    let served = Served::new(Rng::new(4));
    served.begin_sample();
    for batch in 0..100 {
        served.count(200, 2_000, &mut |index| {
            assert!(index < 200);
            point(batch * 200 + index)
        });
    }
    let sample = served.sample();
    assert!((SAMPLES..2 * SAMPLES).contains(&sample.len()));
    let of_first_half = sample.iter().filter(|sample| number(sample) < 10_000).count();
    assert!((SAMPLES / 4..SAMPLES * 3 / 2).contains(&of_first_half), "{of_first_half}");
    assert!(sample.iter().all(|sample| sample.bytes == 10));
}

#[test]
fn a_request_that_finds_the_sampler_in_use_is_counted_and_leaves_no_gap_behind() {
    let served = Served::new(Rng::new(5));
    served.begin_sample();
    let in_use = served.sampler.lock();
    served.count(1, 1, &mut |_| panic!("it does not wait"));
    drop(in_use);
    serve(&served, 1..4);
    assert_eq!(served.sample().iter().map(number).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(served.so_far().0, 4);
}

#[test]
fn threads_lose_no_count() {
    let served = Arc::new(Served::new(Rng::new(6)));
    served.begin_sample();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let served = &served;
            scope.spawn(move || serve(served, thread * 1_000..(thread + 1) * 1_000));
        }
    });
    assert_eq!(served.so_far(), (4_000, 40_000));
    assert!(served.sample().len() < 2 * SAMPLES);
}

#[test]
fn of_regions_that_are_not_led_nothing_is_counted() {
    let table = ServedTable::default();
    let served = Arc::new(Served::new(Rng::new(7)));
    table.replace(BTreeMap::from([(RegionId(2), served.clone())]));
    table.count(RegionId(2), 1, 1, &mut |_| point(0));
    table.count(RegionId(3), 1, 1, &mut |_| panic!("another node leads it"));
    assert_eq!(served.so_far(), (1, 1));
}

#[test]
fn long_keys_are_cut() {
    let sample = Sample::raw(&[2; 10_000], b"a");
    assert_eq!((sample.first.len(), sample.last.len()), (SPLIT_KEY_BYTES_MAX + 1, 1));
}
