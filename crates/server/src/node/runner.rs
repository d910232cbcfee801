//! The driver's thread: steps the driver whenever there is work, and passes its output to the transport.

use crate::driver::{Driver, NodeHandle, Outbound};
use crate::transport::{OutgoingSnapshot, Transport, WriteSnapshot};
use kontiki_env::Env;
use kontiki_env::clock::Clock;
use kontiki_env::tasks::{Progress, TaskHandle};
use kontiki_placement::Now;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::{mpsc, watch};

/// The longest sleep, in case a wake-up is missed: well below a raft tick's default.
const SLEEP_MAX: Duration = Duration::from_millis(20);

/// The running driver.
pub(super) struct Runner {
    /// Keeps the thread; dropping it stops the thread.
    task: Box<dyn TaskHandle>,
    stop: Arc<AtomicBool>,
    /// Why the driver stopped by itself, if it has.
    reason: watch::Receiver<Option<String>>,
    closed: mpsc::Receiver<Result<(), String>>,
}

impl Runner {
    pub(super) fn start(env: &Env, driver: Driver, transport: Transport) -> Runner {
        let stop = Arc::new(AtomicBool::new(false));
        let (tell_reason, reason) = watch::channel(None);
        let (closed_sender, closed) = mpsc::channel(1);
        let node = driver.handle();
        let mut thread = Thread {
            driver: Some(driver),
            node,
            clock: env.clock.clone(),
            transport,
            stop: stop.clone(),
            tell_reason,
            closed_sender,
            wakes: false,
        };
        let task = env.tasks.spawn("driver", Box::new(move || thread.turn()));
        Runner { task, stop, reason, closed }
    }

    /// Done, with the reason, when the driver has stopped by itself.
    pub(super) async fn ended(&mut self) -> String {
        match self.reason.wait_for(Option::is_some).await {
            Ok(reason) => reason.clone().unwrap_or_default(),
            // The thread ended without a reason.
            Err(_) => "its driver failed; please report this, with what was logged".into(),
        }
    }

    /// Stops the driver: it flushes and closes the directory.
    pub(super) fn close(mut self) -> Result<(), String> {
        self.stop.store(true, Ordering::SeqCst);
        self.task.wake();
        self.closed.blocking_recv().unwrap_or_else(|| Err("the driver had failed before".into()))
    }
}

/// What the driver's thread owns.
struct Thread {
    driver: Option<Driver>,
    node: NodeHandle,
    clock: Arc<dyn Clock>,
    transport: Transport,
    stop: Arc<AtomicBool>,
    tell_reason: watch::Sender<Option<String>>,
    closed_sender: mpsc::Sender<Result<(), String>>,
    /// Whether the driver's wake-ups already reach this thread.
    wakes: bool,
}

impl Thread {
    /// One step and one sleep.
    fn turn(&mut self) -> Progress {
        if self.stop.load(Ordering::SeqCst) {
            if let Some(driver) = self.driver.take() {
                // Its capacity is one, and only one is sent.
                let _ = self.closed_sender.try_send(close(driver, &self.node));
            }
            return Progress::Idle;
        }
        let Some(driver) = &mut self.driver else { return Progress::Idle };
        if !self.wakes {
            let thread = std::thread::current();
            driver.set_waker(Box::new(move || thread.unpark()));
            self.wakes = true;
        }
        let now = Now { monotonic: self.clock.monotonic(), wall_ms: self.clock.wall_ms() };
        for outbound in driver.step(now) {
            send(&self.transport, &self.node, outbound);
        }
        if let Some(reason) = driver.stopped() {
            self.tell_reason.send_replace(Some(reason.to_string()));
        }
        let now = self.clock.monotonic();
        // A wake-up between the step and here makes this return at once.
        std::thread::park_timeout(driver.next_deadline(now).saturating_sub(now).min(SLEEP_MAX));
        Progress::Worked
    }
}

fn send(transport: &Transport, node: &NodeHandle, outbound: Outbound) {
    match outbound {
        Outbound::Message { to, bytes } => transport.send(to, bytes),
        Outbound::Snapshot { to, snapshot, view, message, source } => {
            let node = node.clone();
            let estimated_bytes = source.estimated_bytes();
            let write: WriteSnapshot = Box::new(move |receiver, part| {
                let source = if receiver.expiry { source } else { source.without_expiry() };
                source.write(part).map_err(|error| error.to_string())
            });
            let outgoing = OutgoingSnapshot { id: snapshot, message, estimated_bytes, write };
            transport.send_snapshot(to, outgoing, move |ok| node.snapshot_sent(snapshot.region, to, view, ok));
        }
    }
}

fn close(driver: Driver, node: &NodeHandle) -> Result<(), String> {
    // Only to make the next start fast: what is not flushed is in the log.
    if let Err(error) = node.state().flush() {
        tracing::warn!(%error, "the memtables could not be flushed; the next start replays them from the log");
    }
    driver.close().map_err(|error| error.to_string())
}
