//! What the decoders of this crate return for bytes that they did not write.

/// A record or key of this crate that does not decode. The caller knows the key and adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);
