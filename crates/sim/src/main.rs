//! Runs seeds of the simulated cluster, or replays one.

use clap::{Args as Arguments, Parser, Subcommand, ValueEnum};
use kontiki_sim::cluster::{Plan, PlantedBug, Report, Scenario, run_caught};
use kontiki_sim::shrink::Shrunk;
use std::ops::Range;
use std::process::ExitCode;
use std::time::Duration;

/// A whole cluster in one thread from one seed.
#[derive(Parser)]
#[command(name = "kontiki-sim", version)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

/// A run that there was before.
#[derive(Arguments)]
struct Again {
    /// The seed.
    seed: u64,
    /// Length of the phase with faults, in virtual seconds: that of the run.
    #[arg(long, default_value_t = 20)]
    virtual_seconds: u64,
    /// The planted bug of the run.
    #[arg(long, value_enum)]
    planted: Option<PlantedBug>,
    /// The scenario of the run, if it was given.
    #[arg(long, value_enum)]
    scenario: Option<Scenario>,
    /// A majority of the nodes was lost.
    #[arg(long)]
    lose_majority: bool,
}

impl Again {
    fn plan(&self) -> Plan {
        Plan {
            scenario: self.scenario,
            loses_majority: self.lose_majority,
            ..plan(self.seed, self.virtual_seconds, self.planted)
        }
    }
}

#[derive(Subcommand)]
enum Command {
    /// Runs seeds and reports each; the exit code is 1 if any violated a guarantee.
    Run {
        /// The seeds, as FIRST..END.
        #[arg(long, default_value = "0..50", value_parser = parse_range)]
        seeds: Range<u64>,
        /// Length of the phase with faults, in virtual seconds.
        #[arg(long, default_value_t = 20)]
        virtual_seconds: u64,
        /// Plants a bug that some seed should find.
        #[arg(long, value_enum)]
        planted: Option<PlantedBug>,
        /// The scenario of all worlds; absent: each seed draws one.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
        /// In each world a majority of the nodes is lost for good at some moment, and the rest is recovered.
        #[arg(long)]
        lose_majority: bool,
    },
    /// Plants bugs, one after the other, and reports which seed finds each first; the exit code is 1 if one is not
    /// found.
    Find {
        /// The bugs; none: all of them.
        planted: Vec<PlantedBug>,
        /// The seeds, as FIRST..END.
        #[arg(long, default_value = "0..200", value_parser = parse_range)]
        seeds: Range<u64>,
        /// The scenario of all worlds; absent: each seed draws one.
        #[arg(long, value_enum)]
        scenario: Option<Scenario>,
    },
    /// Replays a seed exactly and prints its events, one per line, oldest first.
    Replay {
        #[command(flatten)]
        again: Again,
        /// The nemesis stops after so many actions.
        #[arg(long)]
        actions_max: Option<u64>,
        /// Actions of the nemesis that do not happen, by their numbers from 0 on.
        #[arg(long, value_delimiter = ',')]
        leave_out: Vec<u64>,
    },
    /// Looks for a smaller run that violates a guarantee, too: fewer actions of the nemesis, less time; prints how to
    /// replay it. The exit code is 1 if the seed violates one.
    Shrink {
        #[command(flatten)]
        again: Again,
        /// The maximum number of runs; each takes about half a second.
        #[arg(long, default_value_t = 300)]
        runs_max: u64,
    },
}

fn parse_range(text: &str) -> Result<Range<u64>, String> {
    let wrong = || format!("{text:?} is not FIRST..END");
    let (first, end) = text.split_once("..").ok_or_else(wrong)?;
    let number = |part: &str| part.trim().parse::<u64>().map_err(|_| wrong());
    let range = number(first)?..number(end)?;
    if range.is_empty() { Err(format!("{text:?} holds no seed")) } else { Ok(range) }
}

fn plan(seed: u64, virtual_seconds: u64, planted: Option<PlantedBug>) -> Plan {
    Plan { safety: Duration::from_secs(virtual_seconds), planted, ..Plan::new(seed) }
}

fn print(report: &Report) {
    let faults: u64 = report.faults.values().sum();
    println!(
        "seed {:>5} {:<9}: {} {:>7} events, hash {:016x}, {:>5.1} virtual s, {:>5} answered, {:>4} transactions ({} pessimistic; {:?} in one, async, two), {:>3} stale, {:>3} faults, {:>3} terms, {:>2} snapshots ({} as tables), {:>4} read back, {:>5} states, {:>3} hibernations, {:>3} checks, {:>2} merges, {:>2} splits by load, {:>2} moves of logs, {:>3} member changes{}{}",
        report.seed,
        report.scenario.map_or_else(String::new, |scenario| format!("{scenario:?}").to_lowercase()),
        if report.violations.is_empty() { "good  " } else { "BROKEN" },
        report.events,
        report.trace_hash,
        report.virtual_time.as_secs_f64(),
        report.answered,
        report.transactions,
        report.pessimistic,
        report.commits,
        report.stale_reads,
        faults,
        report.terms,
        report.snapshots,
        report.snapshots_as_tables,
        report.entries_read,
        report.states,
        report.hibernations,
        report.checks,
        report.merges,
        report.splits_by_load,
        report.log_moves,
        report.member_changes,
        report.recovered.map_or_else(String::new, |recovered| format!(", recovery: {recovered:?}")),
        if report.keys_not_checked == 0 {
            String::new()
        } else {
            format!(", {} keys not checked", report.keys_not_checked)
        },
    );
    for violation in &report.violations {
        println!("    {}", violation.replace('\n', "\n    "));
    }
}

/// Reports which seed finds the bug first; false if none does.
fn find(bug: PlantedBug, mut seeds: Range<u64>, scenario: Option<Scenario>) -> bool {
    let found = seeds.find_map(|seed| {
        let report = run_caught(&Plan { scenario, ..plan(seed, 20, Some(bug)) });
        Some((seed, report.violations.into_iter().next()?))
    });
    match &found {
        Some((seed, violation)) => {
            println!("{bug:?}: seed {seed}: {}", violation.lines().next().unwrap_or_default());
        }
        None => println!("{bug:?}: NOT FOUND"),
    }
    found.is_some()
}

/// Prints a smaller run, and how to replay it; false if the plan violates no guarantee.
fn shrink(plan: &Plan, runs_max: u64) -> bool {
    let Some(shrunk) = kontiki_sim::shrink::shrink(plan, runs_max) else {
        println!("seed {} violates no guarantee", plan.seed);
        return false;
    };
    print(&shrunk.report);
    println!("{} actions of the nemesis are left, after {} runs", shrunk.actions(), shrunk.runs);
    let Shrunk { plan, .. } = shrunk;
    let mut command = format!("replay {} --virtual-seconds {}", plan.seed, plan.safety.as_secs());
    let mut add = |option: &str, value: Option<String>| {
        if let Some(value) = value {
            command += &format!(" --{option} {value}");
        }
    };
    add("planted", plan.planted.and_then(|bug| Some(bug.to_possible_value()?.get_name().to_owned())));
    add("scenario", plan.scenario.and_then(|scenario| Some(scenario.to_possible_value()?.get_name().to_owned())));
    add("actions-max", plan.actions_max.map(|max| max.to_string()));
    let left_out: Vec<String> = plan.actions_left_out.iter().map(u64::to_string).collect();
    add("leave-out", Some(left_out.join(",")).filter(|text| !text.is_empty()));
    println!("again: cargo run -p kontiki-sim -- {command}");
    true
}

fn main() -> ExitCode {
    let broken = match Args::parse().command {
        Command::Run { seeds, virtual_seconds, planted, scenario, lose_majority } => {
            let (mut broken, mut virtual_time) = (Vec::new(), Duration::ZERO);
            for seed in seeds {
                let report = run_caught(&Plan {
                    scenario,
                    loses_majority: lose_majority,
                    ..plan(seed, virtual_seconds, planted)
                });
                print(&report);
                virtual_time += report.virtual_time;
                if !report.violations.is_empty() {
                    broken.push(seed);
                }
            }
            println!("{:.0} virtual seconds in all, {} seeds broken", virtual_time.as_secs_f64(), broken.len());
            for seed in &broken {
                let command = "cargo run -p kontiki-sim --";
                let lost = if lose_majority { " --lose-majority" } else { "" };
                println!("again: {command} replay {seed} --virtual-seconds {virtual_seconds}{lost}");
            }
            !broken.is_empty()
        }
        Command::Find { planted, seeds, scenario } => {
            let bugs = if planted.is_empty() { PlantedBug::ALL.to_vec() } else { planted };
            // All of them, even if the first is not found.
            bugs.into_iter().filter(|bug| !find(*bug, seeds.clone(), scenario)).count() > 0
        }
        Command::Replay { again, actions_max, leave_out } => {
            let actions_left_out = leave_out.into_iter().collect();
            let report = run_caught(&Plan { keep_lines: true, actions_max, actions_left_out, ..again.plan() });
            print!("{}", report.lines);
            print(&report);
            !report.violations.is_empty()
        }
        Command::Shrink { again, runs_max } => shrink(&again.plan(), runs_max),
    };
    ExitCode::from(u8::from(broken))
}
