//! Makes a run that violates a guarantee smaller: fewer actions of the nemesis, and less time.
//!
//! A run is determined by its plan, so a smaller plan that violates a guarantee, too, is as good as the first one and
//! easier to follow. The run before the first action that is left out stays the same; what comes after it is another
//! run, because later actions are drawn from the same generator. Many of them are not broken, and are given up. The
//! procedure is delta debugging (Zeller and Hildebrandt, "Simplifying and Isolating Failure-Inducing Input", 2002).

use crate::cluster::{Plan, Report, run_caught};
use std::time::Duration;

/// The shortest first phase that is tried.
const SAFETY_MIN: Duration = Duration::from_secs(1);

/// A plan that violates a guarantee.
pub struct Shrunk {
    /// The plan.
    pub plan: Plan,
    /// Its result.
    pub report: Report,
    /// How many runs it took to find.
    pub runs: u64,
}

impl Shrunk {
    /// Actions of the nemesis that happen, or were not possible.
    pub fn actions(&self) -> u64 {
        self.report.actions - self.plan.actions_left_out.range(..self.report.actions).count() as u64
    }
}

/// Runs smaller plans, at most `runs_max`, and returns the smallest one that violates a guarantee. `None` if `plan`
/// itself does not.
pub fn shrink(plan: &Plan, runs_max: u64) -> Option<Shrunk> {
    let report = run_caught(plan);
    if report.violations.is_empty() {
        return None;
    }
    let mut shrinking = Shrinking { best: Shrunk { plan: plan.clone(), report, runs: 1 }, runs_max };
    shrinking.stop_sooner();
    shrinking.leave_out();
    shrinking.end_sooner();
    Some(shrinking.best)
}

struct Shrinking {
    best: Shrunk,
    runs_max: u64,
}

impl Shrinking {
    fn is_done(&self) -> bool {
        self.best.runs >= self.runs_max
    }

    /// Whether the plan violates a guarantee; then it is the best one.
    fn try_plan(&mut self, plan: Plan) -> bool {
        if self.is_done() {
            return false;
        }
        self.best.runs += 1;
        let report = run_caught(&plan);
        let is_broken = !report.violations.is_empty();
        if is_broken {
            (self.best.plan, self.best.report) = (plan, report);
        }
        is_broken
    }

    /// The nemesis stops after its first actions: as few as possible, by bisection.
    fn stop_sooner(&mut self) {
        let (mut enough, mut too_few) = (self.best.report.actions, None);
        while too_few.is_none_or(|few: u64| few + 1 < enough) && enough > 0 && !self.is_done() {
            let half = too_few.map_or(0, |few| few + (enough - few) / 2);
            let plan = Plan { actions_max: Some(half), ..self.best.plan.clone() };
            if self.try_plan(plan) {
                enough = half;
            } else {
                too_few = Some(half);
            }
        }
    }

    /// Leaves out some of the remaining actions: halves, then quarters, and so on to single ones.
    fn leave_out(&mut self) {
        let mut size = self.best.report.actions.div_ceil(2);
        while size > 0 && !self.is_done() {
            let mut first = 0;
            while first < self.best.report.actions {
                let mut plan = self.best.plan.clone();
                let before = plan.actions_left_out.len();
                plan.actions_left_out.extend(first..(first + size).min(self.best.report.actions));
                if plan.actions_left_out.len() > before {
                    self.try_plan(plan);
                }
                first += size;
            }
            size = if size == 1 { 0 } else { size.div_ceil(2) };
        }
    }

    /// Halves the first phase as long as the violation stays.
    fn end_sooner(&mut self) {
        while self.best.plan.safety >= 2 * SAFETY_MIN {
            let safety = Duration::from_secs(self.best.plan.safety.as_secs() / 2);
            if !self.try_plan(Plan { safety, ..self.best.plan.clone() }) {
                return;
            }
        }
    }
}

#[cfg(test)]
#[path = "shrink_test.rs"]
mod tests;
