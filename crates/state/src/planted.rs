//! Bugs planted on purpose, one for each guarantee whose violation the tests must find. They are off, and compiled in
//! for tests only.

kontiki_env::planted_bugs! {
    /// A flush does nothing.
    NoFlush,
    /// The flushed view has what memory holds, too.
    UnflushedInView,
    /// Tables are taken in before what was committed earlier is flushed.
    IngestBeforeFlush,
}
