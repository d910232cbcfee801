//! Pessimistic locks, and waiting for those of others.

use super::{Held, Outcome, Scheduler};
use crate::action;
use crate::error::Failure;
use crate::lock_waits::{LockWait, News, Turn};
use crate::{KeyError, LockedKey, PessimisticLock, Replicated, TimeStamp, WaitFor};
use bytes::Bytes;
use futures::future::{BoxFuture, Either, select};
use std::time::Duration;

/// The longest time that a request waits for locks: clients give up on a request after 2 s, and then they would not
/// learn who holds the key.
pub const LOCK_WAIT_MAX: Duration = Duration::from_secs(1);

/// How a request came out of a queue.
enum Waited {
    /// It tries again.
    Turn(Turn),
    /// It looks once more, and does not wait again: its time is over, or a first try of the same request has the lock.
    Over,
    /// The wait would never end.
    Deadlock(KeyError),
}

/// Why keys are not locked yet.
struct Blocked {
    key: Bytes,
    /// `None`: it is the turn of another request.
    holder: Option<TimeStamp>,
    errors: Vec<KeyError>,
    held: Held,
}

impl<R: Replicated> Scheduler<R> {
    /// Locks keys for a pessimistic transaction, all or none. `wait_max`: how long it may wait for those of others, at
    /// most [`LOCK_WAIT_MAX`]; `None`: not at all.
    pub async fn pessimistic_lock(
        &self,
        context: &R::Context,
        command: PessimisticLock,
        mut wait_max: Option<Duration>,
    ) -> Outcome<Vec<LockedKey>, R> {
        // It reads at that timestamp: if the lock is lost, others must not commit below.
        self.observe(command.for_update_ts).await?;
        let mut time_over: Option<BoxFuture<'static, ()>> = None;
        let mut turn: Option<Turn> = None;
        loop {
            let Blocked { key, holder, errors, held } =
                match self.try_lock(context, &command, turn.as_ref(), wait_max.is_some()).await? {
                    Ok(answer) => {
                        // With `lock_only_if_exists` the key may be as free as before: then the next one has the turn.
                        let takes = |found: &LockedKey| found.exists || !command.lock_only_if_exists;
                        let of_turn = |turn: &&mut Turn| {
                            let mut keys = command.keys.iter().zip(&answer);
                            keys.any(|(key, found)| turn.is_of(&key.key) && takes(found))
                        };
                        turn.as_mut().filter(of_turn).into_iter().for_each(Turn::locked);
                        return Ok(answer);
                    }
                    Err(blocked) => blocked,
                };
            let Some(time) = wait_max else { return Err(Failure::Keys(errors)) };
            let limit = time_over.get_or_insert_with(|| (self.surroundings.sleep)(time.min(LOCK_WAIT_MAX)));
            let Some(wait) = self.waits.enter(&key, holder, turn.take()) else {
                wait_max = None; // Too many wait: the next try says who holds the key.
                continue;
            };
            drop(held); // Only now: a release before this would not have been noticed.
            match self.wait(wait, command.start_ts, &key, holder, limit).await {
                Waited::Turn(next) => turn = Some(next),
                Waited::Over => wait_max = None,
                Waited::Deadlock(error) => return Err(error.into()),
            }
        }
    }

    async fn try_lock(
        &self,
        context: &R::Context,
        command: &PessimisticLock,
        turn: Option<&Turn>,
        queues_up: bool,
    ) -> Outcome<Result<Vec<LockedKey>, Blocked>, R> {
        let keys: Vec<Bytes> = command.keys.iter().map(|key| key.key.clone()).collect();
        let held = Held { latches: self.latches.acquire(keys.clone()).await, memory: None };
        if queues_up && let Some(key) = self.waits.turn_of_another(&keys, turn) {
            return Ok(Err(Blocked { key, holder: None, errors: Vec::new(), held }));
        }
        let view = self.replicated.view(context).await.map_err(Failure::Replicated)?;
        let view = self.not_below_safe_point(command.start_ts, view)?;
        match action::pessimistic_lock(command, &view).map_err(Failure::lift) {
            Ok((answer, batch)) => {
                drop(view);
                self.write(context, batch, held).await?;
                Ok(Ok(answer))
            }
            Err(Failure::Keys(errors)) => match &errors[..] {
                [KeyError::Locked(lock), ..] => {
                    let (key, holder) = (lock.key.clone(), Some(lock.start_ts));
                    Ok(Err(Blocked { key, holder, errors, held }))
                }
                _ => Err(Failure::Keys(errors)),
            },
            Err(other) => Err(other),
        }
    }

    async fn wait(
        &self,
        mut wait: LockWait,
        waiter: TimeStamp,
        key: &Bytes,
        mut holder: Option<TimeStamp>,
        time_over: &mut BoxFuture<'static, ()>,
    ) -> Waited {
        let detector = &self.surroundings.detector;
        loop {
            let edge = holder.map(|holder| WaitFor { waiter, holder, key: key.clone() });
            let _forget = Forget { detector: &**detector, edge: edge.clone() };
            let detection: BoxFuture<'static, Option<Vec<WaitFor>>> = match edge {
                Some(edge) => detector.detect(edge),
                None => Box::pin(std::future::pending()),
            };
            let deadlock = std::pin::pin!(async {
                match detection.await {
                    Some(chain) => chain,
                    None => std::future::pending().await,
                }
            });
            let ends = select(deadlock, &mut *time_over);
            match select(&mut wait, ends).await {
                Either::Left((News::Turn(turn), _)) => return Waited::Turn(turn),
                Either::Left((News::Holder(Some(own)), _)) if own == waiter => return Waited::Over,
                Either::Left((News::Holder(changed), _)) => holder = changed,
                Either::Right((Either::Left((wait_chain, _)), _)) => {
                    let waits_for = holder.unwrap_or_default();
                    return Waited::Deadlock(KeyError::Deadlock { waits_for, key: key.clone(), wait_chain });
                }
                Either::Right((Either::Right(_), _)) => return Waited::Over,
            }
        }
    }
}

/// Ends a wait for the detector.
struct Forget<'a> {
    detector: &'a dyn crate::DeadlockDetector,
    edge: Option<WaitFor>,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        if let Some(edge) = self.edge.take() {
            self.detector.forget(edge);
        }
    }
}
