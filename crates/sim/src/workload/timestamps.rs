//! Clients of placement: timestamps, ids, and the safe point of garbage collection.

use super::{CallOutcome, Records, Router};
use crate::check::timestamps::Grant;
use crate::cluster::wire::{Ask, Response};
use kontiki_env::rng::Rng;
use kontiki_placement::{AllocateIds, Command, Outcome, Timestamps, UpdateGcSafePoint};
use std::time::Duration;

/// One client: sends requests until it is stopped.
pub async fn timestamp_client(mut router: Router, pause_ms_max: u64, records: Records, mut rng: Rng) {
    let client = router.caller().client();
    let executor = router.caller().executor().clone();
    let mut newest = 0;
    while !records.stop.get() {
        let count = 1 + rng.below(20) as u32;
        let command = match rng.below(10) {
            0 => Command::AllocateIds(AllocateIds { count }),
            // A safe point in the future is refused; one that is older than the present one changes nothing.
            1 => Command::UpdateGcSafePoint(UpdateGcSafePoint { safe_point: rng.below(newest + 1) }),
            _ => Command::Timestamps(Timestamps { count }),
        };
        let invoked = records.history.borrow_mut().event();
        if let CallOutcome::Answered(response) =
            router.ask(Ask::Placement(command.into()), Duration::from_secs(5)).await
            && let Response::Placement(response) = *response
            && let Ok(outcome) = response.into_result()
        {
            let completed = records.history.borrow_mut().event();
            let grant = |first, count| Grant { client, invoked, completed, first, count };
            match outcome {
                Outcome::Timestamps(granted) => {
                    newest = granted.last();
                    records.grants.borrow_mut().push(grant(granted.first(), u64::from(granted.count)));
                }
                Outcome::Ids(granted) => {
                    records.ids.borrow_mut().push(grant(granted.first, u64::from(granted.count)));
                }
                Outcome::SafePoint(response) => records.safe_points.borrow_mut().push(grant(response.safe_point, 1)),
                _ => {}
            }
            records.answered.set(records.answered.get() + 1);
        }
        executor.sleep(Duration::from_micros(1 + rng.below(pause_ms_max * 1_000))).await;
    }
    records.running.set(records.running.get() - 1);
}
