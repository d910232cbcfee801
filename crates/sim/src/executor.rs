//! A deterministic executor of futures: one thread, virtual time, the order of polls drawn from the seed.
//!
//! Tasks belong to *groups* (a node, or the clients), so that a node's tasks are dropped with its process
//! ([`Executor::kill`]) and are paused with it ([`Executor::pause`]). Nothing runs by itself: the world calls
//! [`Executor::run_until_stalled`] between its events, and [`Executor::fire_timers`] when it has advanced the time.

use futures::future::BoxFuture;
use kontiki_env::clock::VirtualTime;
use kontiki_env::rng::Rng;
use parking_lot::Mutex;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

/// Names a group of tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Group(pub u64);

type TaskId = u64;
type LocalFuture = Pin<Box<dyn Future<Output = ()>>>;
type Ready = Arc<Mutex<BTreeSet<TaskId>>>;
type Spawned = Vec<(Group, BoxFuture<'static, ()>)>;

/// The maximum number of polls in one run: far above what one event can cause, so more means that tasks wake each other
/// without end.
const POLLS_PER_RUN_MAX: u64 = 1_000_000;

/// The executor. Clones are the same executor.
#[derive(Clone)]
pub struct Executor {
    inner: Rc<RefCell<Inner>>,
    /// Separate and behind a lock, because wakers must be `Send`, although the simulator has one thread.
    ready: Ready,
    handle: Handle,
}

struct Inner {
    rng: Rng,
    next_id: u64,
    tasks: BTreeMap<TaskId, Task>,
    paused: BTreeSet<Group>,
    is_running: bool,
}

/// The executor's clock and timers, and a way to add tasks: for tasks that must be `Send`, as those of a client of the
/// real protocol, although the simulator has one thread. Clones are of the same executor.
#[derive(Clone)]
pub struct Handle {
    time: VirtualTime,
    timers: Arc<Mutex<Timers>>,
    spawned: Arc<Mutex<Spawned>>,
}

#[derive(Default)]
struct Timers {
    next_id: u64,
    wakers: BTreeMap<(Duration, u64), Waker>,
}

impl Handle {
    /// The true time since the world began.
    pub fn now(&self) -> Duration {
        self.time.now()
    }

    /// Ends after `duration` of true time.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        let mut timers = self.timers.lock();
        timers.next_id += 1;
        let at = self.now().saturating_add(duration);
        Sleep { time: self.time.clone(), timers: Arc::clone(&self.timers), key: (at, timers.next_id) }
    }

    /// Adds a task; it is polled first in the present or the next run.
    pub fn spawn(&self, group: Group, task: impl Future<Output = ()> + Send + 'static) {
        self.spawned.lock().push((group, Box::pin(task)));
    }
}

struct Task {
    group: Group,
    waker: Waker,
    /// Absent while it is polled.
    future: Option<LocalFuture>,
}

struct TaskWaker {
    id: TaskId,
    ready: Ready,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.lock().insert(self.id);
    }
}

impl Executor {
    /// An executor without tasks, in the world whose true time is `time`.
    pub fn new(rng: Rng, time: VirtualTime) -> Executor {
        let inner = Inner { rng, next_id: 0, tasks: BTreeMap::new(), paused: BTreeSet::new(), is_running: false };
        let handle = Handle { time, timers: Arc::default(), spawned: Arc::default() };
        Executor { inner: Rc::new(RefCell::new(inner)), ready: Ready::default(), handle }
    }

    /// See [`Handle`].
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Adds a task; it is polled first in the next run. Callable from inside a task.
    pub fn spawn(&self, group: Group, future: impl Future<Output = ()> + 'static) {
        let mut inner = self.inner.borrow_mut();
        inner.next_id += 1;
        let id = inner.next_id;
        let waker = Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.ready) }));
        inner.tasks.insert(id, Task { group, waker, future: Some(Box::pin(future)) });
        self.ready.lock().insert(id);
    }

    /// The true time since the world began.
    pub fn now(&self) -> Duration {
        self.handle.now()
    }

    /// Ends after `duration` of true time.
    pub fn sleep(&self, duration: Duration) -> Sleep {
        self.handle.sleep(duration)
    }

    /// Drops all tasks of a group. A task that kills its own group ends when its present poll returns.
    pub fn kill(&self, group: Group) {
        let dead: Vec<Task> = {
            let mut inner = self.inner.borrow_mut();
            let ids: Vec<TaskId> =
                inner.tasks.iter().filter(|(_, task)| task.group == group).map(|(id, _)| *id).collect();
            ids.iter().filter_map(|id| inner.tasks.remove(id)).collect()
        };
        drop(dead); // Without a borrow: values owned by tasks may call the executor when they are dropped.
    }

    /// Stops polling a group's tasks; wakes are remembered.
    pub fn pause(&self, group: Group) {
        self.inner.borrow_mut().paused.insert(group);
    }

    /// Polls a group's tasks again.
    pub fn resume(&self, group: Group) {
        self.inner.borrow_mut().paused.remove(&group);
    }

    /// Number of tasks of a group that have not ended.
    pub fn count(&self, group: Group) -> usize {
        self.inner.borrow().tasks.values().filter(|task| task.group == group).count()
    }

    /// Polls woken tasks until none is left; returns the number of polls.
    pub fn run_until_stalled(&self) -> u64 {
        let was_running = std::mem::replace(&mut self.inner.borrow_mut().is_running, true);
        assert!(!was_running, "a task cannot run the executor");
        let mut polls = 0;
        while self.poll_one() {
            polls += 1;
            assert!(polls < POLLS_PER_RUN_MAX, "tasks wake each other without end");
        }
        self.inner.borrow_mut().is_running = false;
        polls
    }

    fn poll_one(&self) -> bool {
        let spawned = std::mem::take(&mut *self.handle.spawned.lock());
        spawned.into_iter().for_each(|(group, task)| self.spawn(group, task));
        let Some((id, waker, mut future)) = self.take_ready() else { return false };
        let state = future.as_mut().poll(&mut Context::from_waker(&waker));
        let mut inner = self.inner.borrow_mut();
        let ended = match inner.tasks.get_mut(&id) {
            Some(task) if state.is_pending() => {
                task.future = Some(future);
                return true;
            }
            Some(_) => inner.tasks.remove(&id),
            None => None, // Killed during its poll.
        };
        drop(inner);
        drop((ended, future));
        true
    }

    fn take_ready(&self) -> Option<(TaskId, Waker, LocalFuture)> {
        let inner = &mut *self.inner.borrow_mut();
        let mut ready = self.ready.lock();
        if ready.is_empty() {
            return None;
        }
        ready.retain(|id| inner.tasks.contains_key(id));
        let is_runnable = |id: &TaskId| !inner.paused.contains(&inner.tasks[id].group);
        let id = match ready.len() {
            1 => ready.first().copied().filter(is_runnable)?,
            _ => {
                let runnable: Vec<TaskId> = ready.iter().copied().filter(is_runnable).collect();
                *inner.rng.pick(&runnable)?
            }
        };
        ready.remove(&id);
        let task = inner.tasks.get_mut(&id)?;
        let future = task.future.take().expect("no task is being polled between polls");
        Some((id, task.waker.clone(), future))
    }

    /// When the earliest sleep ends.
    pub fn next_timer(&self) -> Option<Duration> {
        self.handle.timers.lock().wakers.keys().next().map(|(at, _)| *at)
    }

    /// Wakes the tasks that slept until now or earlier.
    pub fn fire_timers(&self) {
        let due: Vec<Waker> = {
            let mut timers = self.handle.timers.lock();
            let later = timers.wakers.split_off(&(self.now(), u64::MAX));
            std::mem::replace(&mut timers.wakers, later).into_values().collect()
        };
        due.iter().for_each(Waker::wake_by_ref);
    }
}

/// See [`Handle::sleep`].
pub struct Sleep {
    time: VirtualTime,
    timers: Arc<Mutex<Timers>>,
    key: (Duration, u64),
}

impl Future for Sleep {
    type Output = ();

    fn poll(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<()> {
        if self.time.now() >= self.key.0 {
            return Poll::Ready(());
        }
        self.timers.lock().wakers.insert(self.key, context.waker().clone());
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        let waker = self.timers.lock().wakers.remove(&self.key);
        drop(waker);
    }
}

#[cfg(test)]
#[path = "executor_test.rs"]
mod tests;
