//! Clients of the timestamp oracle.

use super::{Asked, Records, Router};
use crate::check::timestamps::Grant;
use crate::cluster::wire::{Ask, Told};
use kontiki_env::rng::Rng;
use kontiki_placement::{Command, Outcome, Timestamps};
use std::time::Duration;

/// One client: asks for timestamps until it is told to stop.
pub async fn timestamp_client(mut router: Router, pause_ms_max: u64, records: Records, mut rng: Rng) {
    let client = router.caller().client();
    let executor = router.caller().executor().clone();
    while !records.stop.get() {
        let count = 1 + rng.below(20) as u32;
        let invoked = records.history.borrow_mut().event();
        let ask = Ask::Placement(Command::Timestamps(Timestamps { count }).into());
        if let Asked::Told(told) = router.ask(ask, Duration::from_secs(5)).await
            && let Told::Placement(response) = *told
            && let Ok(Outcome::Timestamps(granted)) = response.into_result()
        {
            let completed = records.history.borrow_mut().event();
            let count = u64::from(granted.count);
            records.grants.borrow_mut().push(Grant { client, invoked, completed, first: granted.first(), count });
            records.answered.set(records.answered.get() + 1);
        }
        executor.sleep(Duration::from_micros(1 + rng.below(pause_ms_max * 1_000))).await;
    }
    records.running.set(records.running.get() - 1);
}
