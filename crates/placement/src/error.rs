//! Why a node cannot become the placement leader.

/// Result with placement's [`Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// The persisted state could not be loaded. Refusals of single calls are [`crate::Refusal`]s instead.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The view could not be read.
    #[error("reading placement's state: {0}")]
    Read(#[from] kontiki_engine::Error),
    /// A record is not what was written. It is never skipped, because without its bound a timestamp could be handed out
    /// twice.
    #[error("placement's state is corrupt: {record}: {what}")]
    Corrupt {
        /// Which record.
        record: String,
        /// What is wrong with it.
        what: String,
    },
    /// A record of a newer format.
    #[error("placement's state: {record} has format {found}, the newest known is {known}; upgrade this node")]
    UnsupportedFormat {
        /// Which record.
        record: String,
        /// The version found.
        found: u8,
        /// The newest version known.
        known: u8,
    },
}
