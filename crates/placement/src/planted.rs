//! Bugs planted on purpose, one for each guarantee whose violation the simulator must find. They are off, and compiled
//! in for tests only.

kontiki_env::planted_bugs! {
    /// Timestamps are handed out at and above the durable bound.
    TimestampsBeyondBound,
    /// A new leader begins at its wall clock and ignores the bound that it finds.
    BeginAtWallClock,
    /// Ids are handed out at and above the durable bound.
    IdsBeyondBound,
    /// A safe point is returned before it is durable.
    SafePointBeforeDurable,
    /// A write whose outcome is unknown counts as done.
    UnknownWriteCounts,
}
