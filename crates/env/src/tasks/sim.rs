//! Stepped jobs: nothing runs by itself; the owner of the world, or a caller that waits for a job, steps one.

use super::{Job, Progress, TaskHandle, Tasks};
use crate::rng::Rng;
use parking_lot::Mutex;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Jobs that the world steps, in an order drawn from a seed. For one thread. Clones share the jobs.
#[derive(Clone)]
pub struct SimTasks {
    jobs: Arc<Mutex<Jobs>>,
}

struct Jobs {
    rng: Rng,
    next_id: u64,
    slots: BTreeMap<u64, Slot>,
}

struct Slot {
    name: String,
    runnable: bool,
    /// Absent while the job runs: it is not stepped into itself.
    job: Option<Job>,
}

impl SimTasks {
    /// No jobs yet.
    pub fn new(rng: Rng) -> SimTasks {
        SimTasks { jobs: Arc::new(Mutex::new(Jobs { rng, next_id: 0, slots: BTreeMap::new() })) }
    }

    /// Names of the jobs that a step could run now.
    pub fn runnable(&self) -> Vec<String> {
        let jobs = self.jobs.lock();
        jobs.slots.values().filter(|slot| slot.is_ready()).map(|slot| slot.name.clone()).collect()
    }

    /// Whether a step would run something.
    pub fn is_runnable(&self) -> bool {
        self.jobs.lock().slots.values().any(Slot::is_ready)
    }

    /// Whether a step of a job whose name satisfies `of` would run something.
    pub fn is_runnable_of(&self, of: impl Fn(&str) -> bool) -> bool {
        self.jobs.lock().slots.values().any(|slot| slot.is_ready() && of(&slot.name))
    }

    /// Steps one runnable job whose name satisfies `of`, drawn from the seed; returns whether there was one. So that a
    /// world can give some jobs more time than others.
    pub fn step_of(&self, of: impl Fn(&str) -> bool) -> bool {
        let taken = self.take(of);
        self.run(taken)
    }

    /// Steps until no job is runnable; returns the number of steps. Panics after `steps_max`: a job that always has
    /// work is a bug.
    pub fn run_until_idle(&self, steps_max: u64) -> u64 {
        let mut steps = 0;
        while self.step() {
            steps += 1;
            assert!(steps <= steps_max, "still runnable after {steps_max} steps: {:?}", self.runnable());
        }
        steps
    }

    fn take(&self, of: impl Fn(&str) -> bool) -> Option<(u64, Job)> {
        let mut jobs = self.jobs.lock();
        let is_ready = |slot: &Slot| slot.is_ready() && of(&slot.name);
        let ready: Vec<u64> = jobs.slots.iter().filter(|(_, slot)| is_ready(slot)).map(|(id, _)| *id).collect();
        let id = *jobs.rng.pick(&ready)?;
        let slot = jobs.slots.get_mut(&id)?;
        slot.runnable = false; // Before the step: a wake during the step causes another.
        Some((id, slot.job.take()?))
    }

    fn run(&self, taken: Option<(u64, Job)>) -> bool {
        let Some((id, mut job)) = taken else { return false };
        let progress = job();
        let mut jobs = self.jobs.lock();
        if let Some(slot) = jobs.slots.get_mut(&id) {
            slot.runnable |= progress == Progress::Worked;
            slot.job = Some(job);
        } else {
            drop(jobs); // Its handle was dropped during the step.
            drop(job);
        }
        true
    }
}

impl Slot {
    fn is_ready(&self) -> bool {
        self.runnable && self.job.is_some()
    }
}

struct Handle {
    jobs: Arc<Mutex<Jobs>>,
    id: u64,
}

impl TaskHandle for Handle {
    fn wake(&self) {
        if let Some(slot) = self.jobs.lock().slots.get_mut(&self.id) {
            slot.runnable = true;
        }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        let slot = self.jobs.lock().slots.remove(&self.id);
        drop(slot); // Outside the lock: what the job owns may hold handles too.
    }
}

impl Tasks for SimTasks {
    fn spawn(&self, name: &str, job: Job) -> Box<dyn TaskHandle> {
        let mut jobs = self.jobs.lock();
        jobs.next_id += 1;
        let id = jobs.next_id;
        jobs.slots.insert(id, Slot { name: name.to_owned(), runnable: true, job: Some(job) });
        Box::new(Handle { jobs: Arc::clone(&self.jobs), id })
    }

    fn threaded(&self) -> bool {
        false
    }

    fn step(&self) -> bool {
        self.step_of(|_| true)
    }
}

#[cfg(test)]
#[path = "sim_test.rs"]
mod tests;
