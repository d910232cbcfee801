//! Bugs planted on purpose, one for each guarantee whose violation the tests must find. They are off, and compiled in
//! for tests only.

kontiki_env::planted_bugs! {
    /// Files of regions are not synced.
    FilesNotSynced,
    /// New files of regions are used before their directory has been synced.
    NoDirectorySync,
    /// A commit that concerns the engine, too, is not noted there before the files are written.
    NoIntent,
    /// A conversion records the new choice before the logs are at their new place.
    ConvertedTooEarly,
    /// A bad record ends a log, whatever later records say.
    DamageIsATornTail,
}
