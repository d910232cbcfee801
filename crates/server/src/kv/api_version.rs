//! API versions: what the keys of a request look like.
//!
//! In version 1 a key is what the user chose. In version 2 it begins with the mode of the call, `r` (raw) or `x`
//! (transactional), and the number of a keyspace, three bytes, big-endian; the end of a range may be the first key
//! behind all those of the mode. A key of another mode is refused: it would be stored where no call of its own mode
//! finds it.

use kontiki_proto::kvrpcpb::{ApiVersion, Context};

/// Bytes in front of a user's own key: the mode and the number of the keyspace.
const PREFIX_BYTES: usize = 4;
/// Bytes of a key that are shown in an error.
const SHOWN_BYTES: usize = 16;

/// What kind of call the keys of version 2 are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum KeyMode {
    /// Raw.
    Raw,
    /// Transactional.
    Txn,
}

impl KeyMode {
    const fn first_byte(self) -> u8 {
        match self {
            KeyMode::Raw => b'r',
            KeyMode::Txn => b'x',
        }
    }

    /// The mode that a key of version 2 says.
    pub fn of(key: &[u8]) -> Option<KeyMode> {
        [KeyMode::Raw, KeyMode::Txn].into_iter().find(|mode| mode.has(key))
    }

    fn has(self, key: &[u8]) -> bool {
        key.len() >= PREFIX_BYTES && key.first() == Some(&self.first_byte())
    }

    /// Refuses a key of another mode.
    pub fn check_key(self, key: &[u8]) -> Result<(), String> {
        if self.has(key) { Ok(()) } else { Err(self.refusal("key", key)) }
    }

    /// Refuses a range that goes beyond the keys of this mode.
    pub fn check_range(self, lower: &[u8], upper: &[u8]) -> Result<(), String> {
        if !self.has(lower) {
            return Err(self.refusal("range's start", lower));
        }
        let is_behind_all = upper.len() <= PREFIX_BYTES
            && upper
                .split_first()
                .is_some_and(|(first, rest)| *first == self.first_byte() + 1 && rest.iter().all(|byte| *byte == 0));
        if self.has(upper) || is_behind_all { Ok(()) } else { Err(self.refusal("range's end", upper)) }
    }

    fn refusal(self, what: &str, key: &[u8]) -> String {
        let shown = key.get(..SHOWN_BYTES).unwrap_or(key).escape_ascii();
        let (mode, first) = match self {
            KeyMode::Raw => ("raw", 'r'),
            KeyMode::Txn => ("transactional", 'x'),
        };
        format!(
            "the {what} of a {mode} call of API version 2 begins with `{first}` and the three bytes of a keyspace's \
             number; this one is \"{shown}\""
        )
    }
}

/// Whether the request is of version 2. Refuses versions that are not served.
pub(super) fn is_v2(context: &Option<Context>) -> Result<bool, String> {
    let version = context.as_ref().map_or(0, |context| context.api_version);
    match ApiVersion::try_from(version) {
        // V1TTL differs in how TiKV stores values; on the wire it is version 1.
        Ok(ApiVersion::V1 | ApiVersion::V1ttl) => Ok(false),
        Ok(ApiVersion::V2) => Ok(true),
        _ => Err(format!("API version {version} is not served; 1 and 2 are")),
    }
}

#[cfg(test)]
#[path = "api_version_test.rs"]
mod tests;
