//! `kontiki unsafe-recovery`: lets the stores that are left go on when a majority is lost for good.

use super::{Failure, local, text};
use clap::Args;
use kontiki::{Db, Options};
use kontiki_engine::inspect;
use kontiki_env::Env;
use kontiki_server::stopped::{self, INCONSISTENT_MARK, LostStores, RefusedPlan, RegionPlan, plan_recovery};
use serde_json::json;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::PathBuf;

/// Arguments of `kontiki unsafe-recovery`.
#[derive(Args, Debug)]
pub struct UnsafeRecovery {
    /// The directory of a node that is left, which does not run
    #[arg(long, value_name = "DIR")]
    data_dir: PathBuf,
    /// The stores that are lost for good; the same on every directory that is left
    #[arg(long, value_name = "ID,...", value_delimiter = ',', required = true)]
    lost_stores: Vec<u64>,
    /// Regions of which nothing but learners is left, and for each the store with the one that it goes on from; the
    /// same on every directory
    #[arg(long, value_name = "REGION=STORE,...", value_delimiter = ',', value_parser = parse_learner)]
    from_learners: Vec<(u64, u64)>,
    /// The number of the recovery, if the directory of another node has a higher one: that node's log names it
    #[arg(long, value_name = "NUMBER", value_parser = clap::value_parser!(u64).range(1..=1_000_000))]
    number: Option<u64>,
    /// Do it: without this, only what would be done is printed
    #[arg(long)]
    yes: bool,
    /// New timestamps begin so far after the clock of this machine: more than any clock of a node was ahead of it
    #[arg(long, value_name = "SECONDS", default_value_t = 60, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    clock_margin_seconds: u64,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl UnsafeRecovery {
    /// Prints what is done, or would be.
    pub fn run(self) -> Result<(), Failure> {
        local::find_database(&self.data_dir)?;
        let mark = self.data_dir.join(INCONSISTENT_MARK);
        if Env::real().fs.exists(&mark) {
            let what = "its data differ from those of the other replicas, so no node starts with it; give it up, too";
            return Err(Failure::usage(format!("{} is marked: {what}", mark.display())));
        }
        let (db, _lock) = if self.yes {
            (Db::open(&self.data_dir, Options::default()).map_err(local::failed)?, None)
        } else {
            let lock = inspect::lock_to_read(&Env::real(), &self.data_dir).map_err(local::failed)?;
            (Db::open_read_only(&self.data_dir, Options::default()).map_err(local::failed)?, lock)
        };
        let lost: BTreeSet<u64> = self.lost_stores.iter().copied().collect();
        let min_ms = Env::real().clock.wall_ms().saturating_add(self.clock_margin_seconds * 1000);
        let learners: BTreeMap<u64, u64> = self.from_learners.iter().copied().collect();
        if learners.len() < self.from_learners.len() {
            return Err(Failure::usage("--from-learners names a region twice"));
        }
        let logs = stopped::logs(&Env::real(), &self.data_dir, &db).map_err(local::failed)?;
        let plan = plan_recovery(&db, &logs, &lost, &learners, self.number, min_ms)
            .map_err(|refused| self.refused(&refused))?;
        if self.yes {
            plan.record(&db).map_err(local::failed)?;
            db.close().map_err(local::failed)?;
        }
        self.print(&plan)
    }

    fn refused(&self, refused: &RefusedPlan) -> Failure {
        let what = format!("{}: {refused}", self.data_dir.display());
        match refused {
            RefusedPlan::Damaged(_) | RefusedPlan::Placement(_) | RefusedPlan::Engine(_) => Failure::new(what),
            _ => Failure::usage(what),
        }
    }

    fn print(&self, plan: &LostStores) -> Result<(), Failure> {
        let mut out = std::io::stdout().lock();
        if self.json {
            writeln!(out, "{:#}", self.to_json(plan))?;
            return Ok(());
        }
        let lost = list(plan.lost().iter().copied());
        writeln!(out, "store {} of cluster {}, without stores {lost}\n", plan.store, plan.cluster)?;
        for (region, store) in plan.learners() {
            writeln!(out, "region {region} goes on from its learner on store {store}\n")?;
        }
        if let (Some(before), false) = (plan.recorded_before(), plan.is_recorded) {
            let (number, stores) = (before.number, list(before.lost.iter().map(|store| store.0)));
            writeln!(out, "It records unsafe recovery {number}, without stores {stores}: this is a further one\n")?;
        }
        let header = ["REGION", "MEMBERS", "AFTERWARDS", "APPLIED", "COMMITTED", "LOG ENDS AT", "IN TERM"];
        writeln!(out, "{}\n", text::table(&header, plan.regions.iter().map(row)))?;
        if plan.regions.iter().any(|region| !region.only_learners.is_empty()) {
            let what = "name for each the store where its log ends last: --from-learners REGION=STORE";
            writeln!(out, "Of some regions nothing but learners is left. They are not recovered; {what}\n")?;
        }
        let folder = self.data_dir.display();
        let last = if plan.is_recorded {
            format!("{folder} says so already, of these stores: there is nothing to do")
        } else if self.yes {
            format!(
                "{folder}: recorded as unsafe recovery {}; start the node when this is done on every directory that is \
                 left",
                plan.number()
            )
        } else {
            "Nothing was changed. Acknowledged writes that only the lost stores have are lost by this, and the lost \
             stores must never be started again; any of them that runs now stops. With --yes it is done."
                .to_owned()
        };
        writeln!(out, "{last}")?;
        Ok(())
    }

    fn to_json(&self, plan: &LostStores) -> serde_json::Value {
        let region = |region: &RegionPlan| {
            json!({
                "id": region.before.id.0,
                "conf_version": region.before.epoch.conf_version,
                "version": region.before.epoch.version,
                "stores": region.before.peers.iter().map(|peer| peer.store.0).collect::<Vec<_>>(),
                "stores_after": region.stores_after.iter().map(|store| store.0).collect::<Vec<_>>(),
                "loses_quorum": region.loses_quorum,
                "only_learners_on": region.only_learners.iter().map(|store| store.0).collect::<Vec<_>>(),
                "applied_index": region.applied,
                "committed_index": region.log.committed,
                "last_index": region.log.index,
                "last_term": region.log.term,
            })
        };
        let learner = |(region, store): (u64, u64)| json!({ "region": region, "store": store });
        json!({
            "cluster_id": plan.cluster,
            "store_id": plan.store.0,
            "number": plan.number(),
            "lost_stores": plan.lost(),
            "from_learners": plan.learners().map(learner).collect::<Vec<_>>(),
            "done": self.yes || plan.is_recorded,
            "was_done_before": plan.is_recorded,
            "timestamp_min_ms": plan.timestamp_min_ms(),
            "id_min": plan.id_min(),
            "regions": plan.regions.iter().map(region).collect::<Vec<_>>(),
        })
    }
}

/// `REGION=STORE`.
fn parse_learner(text: &str) -> Result<(u64, u64), String> {
    let numbers = text.split_once('=').map(|(region, store)| (region.parse(), store.parse()));
    match numbers {
        Some((Ok(region), Ok(store))) => Ok((region, store)),
        _ => Err("a region and a store, as 7=4".to_owned()),
    }
}

fn list(stores: impl Iterator<Item = u64>) -> String {
    stores.map(|store| store.to_string()).collect::<Vec<_>>().join(", ")
}

fn row(region: &RegionPlan) -> Vec<String> {
    let after = match region.loses_quorum {
        _ if !region.only_learners.is_empty() => {
            format!("none; learners on {}", list(region.only_learners.iter().map(|store| store.0)))
        }
        true => list(region.stores_after.iter().map(|store| store.0)),
        false => "the same".to_owned(),
    };
    vec![
        region.before.id.to_string(),
        list(region.before.peers.iter().map(|peer| peer.store.0)),
        after,
        region.applied.to_string(),
        region.log.committed.to_string(),
        region.log.index.to_string(),
        region.log.term.to_string(),
    ]
}
