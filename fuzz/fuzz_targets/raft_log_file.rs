//! Files of raft logs: no input panics, as a whole file, or as the body of a record in a good frame.
#![no_main]

use kontiki_raftlog::internals::{file_of, read_file};
use libfuzzer_sys::fuzz_target;

fuzz_target!(
    init: {
        // If the frame were not the format's, every body would be refused unread: a truncation through 7.
        assert_eq!(read_file(&file_of(&[3, 7])).ok(), Some(7));
    },
    |data: &[u8]| {
        let _ = read_file(data);
        let _ = read_file(&file_of(data));
    }
);
