//! Decoder of the commands in log entries: any bytes are decoded or refused, and what is decoded means the same when it
//! is encoded again. What is decoded is decided about without a panic.
#![no_main]

use bytes::Bytes;
use kontiki_engine::Family;
use kontiki_raftstore::command::{Action, Carrier, decide, decode, encode};
use kontiki_raftstore::{Epoch, Families, Peer, PeerId, Region, RegionId, Space, StoreId};
use libfuzzer_sys::fuzz_target;

/// Earlier numbers too, which writes of the earlier format have.
const FAMILIES: Families = Families {
    meta: Family(20),
    system: &[Family(21)],
    data: &[Family(0), Family(17)],
    earlier: &[(Family(1), Family(17)), (Family(4), Family(20)), (Family(5), Family(21))],
};

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (is_change, context, data) = input;
    let carrier = if is_change { Carrier::MemberChange } else { Carrier::Normal };
    let Ok(Some(command)) = decode(&FAMILIES, carrier, &context, &data.into()) else { return };
    let (again, context, data) = encode(command.clone());
    assert_eq!(again, carrier, "a membership change has its own carrier");
    let decoded = decode(&FAMILIES, carrier, &context, &data).expect("an encoding decodes");
    // A write of the earlier format is encoded in the present one.
    assert_eq!(decoded.as_ref(), Some(&command));
    let region = Region {
        id: RegionId(2),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: command.epoch,
        peers: vec![Peer { id: PeerId(1), store: StoreId(1) }],
        roles: Default::default(),
        merges: Default::default(),
        space: Space::Data,
    };
    let is_write = matches!(command.action, Action::Write(_));
    let stale = Epoch { version: command.epoch.version.wrapping_add(1), ..command.epoch };
    assert!(decide(&FAMILIES, &Region { epoch: stale, ..region.clone() }, command.clone()).is_err());
    if is_write || command.epoch.version < u64::MAX / 2 && command.epoch.conf_version < u64::MAX {
        let _ = decide(&FAMILIES, &region, command);
    }
});
