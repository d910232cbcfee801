//! Decoder of the commands in log entries: any bytes are decoded or refused, and what is decoded means the same when it
//! is encoded again. What is decoded is decided about without a panic.
#![no_main]

use bytes::Bytes;
use kontiki_raftstore::command::{Action, Carrier, decide, decode, encode};
use kontiki_raftstore::{Epoch, Peer, PeerId, Region, RegionId, Space, StoreId};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|input: (bool, Vec<u8>, Vec<u8>)| {
    let (is_change, context, data) = input;
    let carrier = if is_change { Carrier::MemberChange } else { Carrier::Normal };
    let Ok(Some(command)) = decode(carrier, &context, &Bytes::from(data)) else { return };
    let (again, context, data) = encode(command.clone());
    assert_eq!(again, carrier, "a membership change has its own carrier");
    let decoded = decode(carrier, &context, &data).expect("an encoding decodes");
    // A write of the earlier format is encoded in the present one.
    assert_eq!(decoded.as_ref(), Some(&command));
    let region = Region {
        id: RegionId(2),
        start_key: Bytes::new(),
        end_key: Bytes::new(),
        epoch: command.epoch,
        peers: vec![Peer { id: PeerId(1), store: StoreId(1) }],
        space: Space::Data,
    };
    let is_write = matches!(command.action, Action::Write(_));
    let stale = Epoch { version: command.epoch.version.wrapping_add(1), ..command.epoch };
    assert!(decide(&Region { epoch: stale, ..region.clone() }, None, command.clone()).is_err());
    if is_write || command.epoch.version < u64::MAX / 2 && command.epoch.conf_version < u64::MAX {
        let _ = decide(&region, None, command);
    }
});
