//! What the decoders of this crate return for bytes that they did not write.

use kontiki_env::memcomparable::NotMemcomparable;

/// A record or key of this crate that does not decode. The caller knows the key and adds it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub &'static str);

impl From<NotMemcomparable> for Malformed {
    fn from(NotMemcomparable(what): NotMemcomparable) -> Malformed {
        Malformed(what)
    }
}
