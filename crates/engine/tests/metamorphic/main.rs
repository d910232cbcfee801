//! The whole database against an ordered map, through its public API: random operations with random options on a disk
//! that fails as disks do.
//!
//! A *script* is drawn from a seed, step by step, and never depends on the options: so the same script is run with
//! several sets of options, and the answers must be the same (`variants`). Other scripts lose the power in the middle
//! of anything, or fill the disk (`disasters`); what is left then must be the state after some number of commits, at
//! least all that had to survive.
//!
//! The files: `draw.rs` (keys, values, batches), `knobs.rs` (options), `model.rs` (the map, and which commits must
//! survive), `world.rs` (the database with what is held open on it; restarts and crashes), `steps.rs`,
//! `transactions.rs`, `copies.rs`, `feed.rs`, `operations.rs` (what a script can do); `faults.rs`
//! (the same steps, with every fault at every operation of the disk). A new operation is a method of `World` that
//! compares its answers, and a line in [`STEPS`].
//!
//! To run it for hours: see docs/internals/testing.md. A failure prints the seed that repeats it; keep that in
//! [`FOUND`].

mod copies;
mod draw;
mod faults;
mod feed;
mod knobs;
mod model;
mod operations;
mod steps;
mod transactions;
mod world;

use kontiki_engine::Result;
use kontiki_env::rng::Rng;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use world::World;

type Step = fn(&mut World, &mut Rng) -> Result<()>;

/// What a script consists of, and how often: of the sum of weights. New kinds go to the end, see [`FOUND`].
const STEPS: &[(&str, u64, Step)] = &[
    ("write", 240, World::write),
    ("write_if", 25, World::write_if),
    ("read_keys", 50, World::read_keys),
    ("scan", 80, World::scan),
    ("snapshots", 40, World::snapshots),
    ("transaction", 250, World::transaction),
    ("work", 80, World::work),
    ("time", 30, World::time),
    ("flush", 12, World::flush),
    ("compact", 8, World::compact),
    ("collect", 10, World::collect),
    ("look_at_all", 8, World::look_at_all),
    ("checkpoint", 4, World::checkpoint),
    ("back_up", 6, World::back_up),
    ("inspect", 3, World::inspect),
    ("close", 5, |world, _| {
        world.close_and_reopen();
        Ok(())
    }),
    ("kill", 5, |world, _| {
        world.kill_and_reopen();
        Ok(())
    }),
    ("feed", 40, World::feed),
    ("ingest", 10, World::ingest),
    ("compact_range", 6, World::compact_range),
    ("read_only", 4, World::read_only),
    ("family", 8, World::family),
    ("delete_ranges", 40, World::delete_ranges),
];

/// Steps that restart the database: a disk that is full would be in their way.
const RESTARTS: [&str; 4] = ["inspect", "close", "kill", "read_only"];

/// Seeds of the suite, and how many steps each of their scripts has.
const SUITE_SEEDS: u64 = 200;
const SUITE_STEPS: u64 = 300;

/// Seeds that have found something, with the number of steps they need, and how many kinds of steps there were then:
/// their scripts have no others, so they stay what they were.
const FOUND: &[(u64, u64, usize)] = &[
    // A submitted commit that was in the log when the power went was answered as if nothing had been written.
    (46, 300, 17),
    // A table of level 0 that was rewritten in place lost tombstones that older ones in its level still needed.
    (56, 300, 17),
    // On a full disk the jobs that merge tables woke each other for ever.
    (81, 300, 17),
    (199, 300, 17),
    // A check read values of versions that a range tombstone hides.
    (109, 300, 17),
    // The second one again: it finds it whatever the jobs' order (what a seed does depends on which jobs there are).
    (85, 300, 18),
    // An ingest that waited for a flush let a compaction begin that could only wait for the ingest: a stepped world
    // only.
    (520, 400, 21),
    // The newest tables of a shard of level 0, as large as tables may be and next to each other, were merged for ever.
    (21621, 900, 22),
];

/// The weights of one script: each kind of step is rare in some and frequent in others, so that between them some do
/// little else.
fn weights(rng: &mut Rng, kinds: usize) -> Vec<u64> {
    STEPS.iter().take(kinds).map(|(_, weight, _)| weight * [0, 1, 1, 1, 4][rng.below(5) as usize]).collect()
}

fn choose(rng: &mut Rng, weights: &[u64]) -> usize {
    let mut left = rng.below(weights.iter().sum::<u64>().max(1));
    let chosen = weights.iter().position(|weight| {
        let here = left < *weight;
        left = left.saturating_sub(*weight);
        here
    });
    chosen.unwrap_or(0)
}

/// Whether log segments are mapped in the run of this seed.
fn maps(seed: u64) -> bool {
    seed % 4 == 2
}

/// A script without faults; returns the history of its answers.
fn play(world: &mut World, seed: u64, steps: u64, kinds: usize) {
    let mut rng = Rng::new(seed).child("script");
    let weights = weights(&mut rng, kinds);
    for number in 0..steps {
        let (name, _, step) = STEPS[choose(&mut rng, &weights)];
        world.say(|| format!("{number}: {name}"));
        // A separate generator, so that what one step draws does not shift the next.
        let mut step_rng = Rng::new(rng.next_u64());
        step(world, &mut step_rng).expect("a healthy disk");
        world.check_if_requested(name);
    }
    world.check_all("the end").expect("a healthy disk");
    world.close_and_reopen();
    world.check_all("the end, reopened").expect("a healthy disk");
}

/// A script in which the power goes off, and the disk fills up, at random operations of the disk.
fn play_disasters(world: &mut World, seed: u64, steps: u64, kinds: usize) {
    let mut rng = Rng::new(seed).child("script");
    let weights = weights(&mut rng, kinds);
    let full_disks = rng.chance(1, 3);
    for number in 0..steps {
        let chosen = choose(&mut rng, &weights);
        let (name, _, step) = STEPS[chosen];
        let mut step_rng = Rng::new(rng.next_u64());
        match step_rng.below(50) {
            0 if full_disks => set_scarce(world, true, &mut step_rng),
            1 | 2 => world.machine.fs.power_off_after(step_rng.below(150)),
            3 => world.lose_power_and_reopen(&mut step_rng),
            _ => {}
        }
        if RESTARTS.contains(&name) {
            world.machine.fs.clear_faults();
        }
        if world.scarce && (RESTARTS.contains(&name) || step_rng.chance(1, 30)) {
            set_scarce(world, false, &mut step_rng);
        }
        if world.machine.fs.is_off() {
            world.lose_power_and_reopen(&mut step_rng);
        }
        world.say(|| format!("{number}: {name}"));
        let outcome = step(world, &mut step_rng);
        world.after(outcome, &mut step_rng);
        world.check_if_requested(name);
    }
    world.lose_power_and_reopen(&mut rng);
}

/// Fills the disk, or frees it: then everything resumes by itself.
fn set_scarce(world: &mut World, scarce: bool, rng: &mut Rng) {
    world.scarce = scarce;
    let fs = world.machine.fs.clone();
    world.say(|| format!("the disk is {}", if scarce { "nearly full" } else { "roomy" }));
    fs.set_quota(scarce.then(|| fs.used_bytes() + rng.below(30_000)));
    if !scarce && !fs.is_off() {
        // Background work notices the space when something wakes it; until then a write may return the last error.
        let outcome = world.write(rng);
        world.run_until_idle();
        if !fs.is_off() && outcome.is_err() {
            world.write(rng).expect("there is space again");
            world.flush(rng).expect("there is space again");
        }
    }
}

/// Runs a script; on a failure says how to repeat it.
fn run(seed: u64, steps: u64, kinds: usize) {
    let variants = seed.is_multiple_of(4);
    let count = if variants { 3 } else { 1 };
    let mut histories = Vec::new();
    for variant in 0..count {
        // Another set of options for each, but the first is the seed's.
        let options_seed = seed + variant * 1_000_003;
        let mut world = World::new(seed, options_seed, maps(seed));
        let played = catch_unwind(AssertUnwindSafe(|| {
            if variants { play(&mut world, seed, steps, kinds) } else { play_disasters(&mut world, seed, steps, kinds) }
        }));
        if let Err(panic) = played {
            eprintln!("{:?}\n{}", world.options, world.last_lines());
            eprintln!("seed {seed}, {steps} steps, variant {variant} failed. To repeat it:");
            eprintln!(
                "KONTIKI_METAMORPHIC_SEEDS={seed} KONTIKI_METAMORPHIC_STEPS={steps} \
                 cargo test -p kontiki-engine --test metamorphic -- --ignored --nocapture"
            );
            // What is left of the world may fail again when it is dropped.
            std::mem::forget(world);
            std::panic::resume_unwind(panic);
        }
        histories.push(world.history);
    }
    for (variant, history) in histories.iter().enumerate() {
        assert!(
            *history == histories[0],
            "seed {seed}, {steps} steps: options {variant} answer otherwise than options 0"
        );
    }
}

fn run_all(seeds: Range<u64>) {
    seeds.for_each(|seed| run(seed, SUITE_STEPS, STEPS.len()));
}

#[test]
fn seeds_of_the_suite_in_the_first_half() {
    run_all(0..SUITE_SEEDS / 2);
}

#[test]
fn seeds_of_the_suite_in_the_second_half() {
    run_all(SUITE_SEEDS / 2..SUITE_SEEDS);
}

#[test]
fn seeds_that_once_found_something() {
    FOUND.iter().for_each(|(seed, steps, kinds)| run(*seed, *steps, *kinds));
}

/// A seed repeats its run exactly: answers, and operations of the disk.
#[test]
fn a_seed_repeats_its_run() {
    let once = |seed: u64| {
        let mut world = World::new(seed, seed, maps(seed));
        play_disasters(&mut world, seed, SUITE_STEPS, STEPS.len());
        (std::mem::take(&mut world.history), world.machine.fs.ops(), world.machine.fs.used_bytes())
    };
    for seed in [1, 2, 3] {
        assert!(once(seed) == once(seed), "seed {seed}");
    }
}

/// Scripts for as long as one likes: `KONTIKI_METAMORPHIC_SEEDS` is a seed or a range `a..b`,
/// `KONTIKI_METAMORPHIC_STEPS` how long each script is, `KONTIKI_METAMORPHIC_KINDS` how many kinds of steps it has (for
/// those of [`FOUND`]).
#[test]
#[ignore = "runs for the given time"]
fn seeds_from_the_environment() {
    let variable = |name: &str| std::env::var(name).ok();
    let number = |text: &str| -> u64 { text.trim().parse().expect("a number") };
    let seeds = variable("KONTIKI_METAMORPHIC_SEEDS").unwrap_or_else(|| "0..1000".into());
    let steps = variable("KONTIKI_METAMORPHIC_STEPS").map_or(SUITE_STEPS, |text| number(&text));
    let kinds = variable("KONTIKI_METAMORPHIC_KINDS").map_or(STEPS.len(), |text| number(&text) as usize);
    let seeds = match seeds.split_once("..") {
        Some((first, end)) => number(first)..number(end),
        None => number(&seeds)..number(&seeds) + 1,
    };
    for seed in seeds {
        run(seed, steps, kinds);
        if seed % 100 == 99 {
            eprintln!("through seed {seed}");
        }
    }
}
