//! Keys in messages: bounded, so that an error about a key of 64 KiB stays readable.

use std::fmt;

/// Bytes of a key that a message shows: two lines of a terminal at most, also if each byte is escaped.
const SHOWN_BYTES_MAX: usize = 48;

/// A key in quotes: printable ASCII as it is, other bytes escaped; of a long one the beginning and the length.
#[derive(Clone, Copy, Debug)]
pub struct KeyText<'a>(pub &'a [u8]);

impl fmt::Display for KeyText<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let KeyText(key) = self;
        match key.get(..SHOWN_BYTES_MAX).filter(|_| key.len() > SHOWN_BYTES_MAX) {
            Some(start) => write!(f, "\"{}...\" ({} bytes)", start.escape_ascii(), key.len()),
            None => write!(f, "\"{}\"", key.escape_ascii()),
        }
    }
}

#[cfg(test)]
#[path = "key_text_test.rs"]
mod tests;
