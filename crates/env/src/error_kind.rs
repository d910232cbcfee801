//! What a caller can do about an error: the same small list for the engine and for the client of a cluster.

/// What the caller of a failed call can do.
///
/// Errors have more variants than there are answers to them; programs that do not need the details match on this.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The same call can succeed later: wait, and repeat it. It had no effect.
    Retry,
    /// The call is wrong, or its options are: change it. It had no effect.
    InvalidArgument,
    /// What the call names does not exist any more, such as a dropped family or changes that the log no longer holds.
    NotFound,
    /// Another write was first, or a condition does not hold: read again and decide anew. It had no effect.
    Conflict,
    /// Data on disk is not what was written: run `kontiki check`, and restore a backup.
    Corruption,
    /// The operating system or the network failed. Whether a write took effect may be unknown: read to find out.
    Io,
    /// This database, or this connection, takes no more calls: mend the cause that the message names, and open it
    /// again.
    Stopped,
    /// The store has failed in a way that the caller cannot mend: please report it.
    Internal,
}
