//! Bugs planted for the tests of the tests: each must be found by the harness or the simulator. Compiled in only with
//! the feature `planted-bugs`, and then still off until switched on.

/// Which bugs a store has.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Planted {
    /// A proposal is acknowledged when it is appended, before a quorum has it.
    pub acknowledge_before_quorum: bool,
    /// A replica that believes it leads serves reads without looking at its lease.
    pub read_without_lease: bool,
    /// After a restart, entries that tables already hold are applied once more.
    pub apply_twice_after_restart: bool,
}
