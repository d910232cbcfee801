//! Decoders of lock records, write records and memcomparable keys: any bytes are decoded or refused, and what is
//! decoded means the same when it is encoded again.
#![no_main]

use kontiki_txn::{Lock, Write, memcomparable_decode, memcomparable_encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    if let Ok(lock) = Lock::decode(bytes) {
        assert_eq!(Lock::decode(&lock.encode()).expect("an encoding decodes"), lock);
    }
    if let Ok(write) = Write::decode(bytes) {
        assert_eq!(Write::decode(&write.encode()).expect("an encoding decodes"), write);
    }
    if let Ok(key) = memcomparable_decode(bytes) {
        assert_eq!(memcomparable_encode(&key), bytes, "the encoding of a key is unique");
    }
    assert_eq!(memcomparable_decode(&memcomparable_encode(bytes)).expect("an encoding decodes"), bytes);
});
