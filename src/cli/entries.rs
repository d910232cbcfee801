//! Entries printed one by one: one line each, as text or as JSON.
//!
//! In text the keys form a column. Its width is that of the longest key among the first entries; a longer key that
//! comes later moves its own value to the right. Only these first entries are kept in memory.

use super::text::{self, Escaped};
use std::io::{self, Write};

/// Number of entries that determine the width of the key column.
const FIRST_ENTRIES: usize = 1_000;
/// Bytes of keys and values at which fewer entries determine it.
const FIRST_BYTES: usize = 1 << 20;
/// The maximum width of the key column, so that one long key does not move all values off the screen.
const KEY_CHARS_MAX: usize = 48;
/// The separator between key and value.
const GAP_CHARS: usize = 2;
/// Output is written in pieces of this size.
const BUFFER_BYTES: usize = 64 << 10;

/// How entries are printed.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// Keys and values as hexadecimal digits.
    pub hex: bool,
    /// A JSON object for each entry.
    pub json: bool,
}

/// Prints entries. [`Printer::finish`] writes the rest.
pub struct Printer<W: Write> {
    out: io::BufWriter<W>,
    style: Style,
    /// The first entries, until the width of the key column is known.
    first: Vec<(Vec<u8>, Vec<u8>)>,
    first_bytes: usize,
    key_chars: Option<usize>,
}

impl<W: Write> Printer<W> {
    /// To `out`.
    pub fn new(out: W, style: Style) -> Printer<W> {
        let out = io::BufWriter::with_capacity(BUFFER_BYTES, out);
        Printer { out, style, first: Vec::new(), first_bytes: 0, key_chars: None }
    }

    /// The next entry.
    pub fn entry(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        if self.style.json {
            return self.json_line(key, value);
        }
        if let Some(chars) = self.key_chars {
            return self.line(chars, key, value);
        }
        self.first.push((key.to_vec(), value.to_vec()));
        self.first_bytes += key.len() + value.len();
        if self.first.len() >= FIRST_ENTRIES || self.first_bytes >= FIRST_BYTES { self.begin() } else { Ok(()) }
    }

    /// Ends the output.
    pub fn finish(mut self) -> io::Result<()> {
        if !self.style.json && self.key_chars.is_none() {
            self.begin()?;
        }
        self.out.flush()
    }

    /// Decides on the width, and prints the header and the first entries.
    fn begin(&mut self) -> io::Result<()> {
        let first = std::mem::take(&mut self.first);
        let chars = |(key, _): &(Vec<u8>, Vec<u8>)| Escaped::of(key, self.style.hex).chars();
        let widest = first.iter().map(chars).max().unwrap_or(0);
        let key_chars = widest.clamp("KEY".len(), KEY_CHARS_MAX);
        self.key_chars = Some(key_chars);
        self.padded(key_chars, &Escaped::of(b"KEY", false))?;
        self.out.write_all(b"VALUE\n")?;
        first.iter().try_for_each(|(key, value)| self.line(key_chars, key, value))
    }

    fn line(&mut self, key_chars: usize, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.padded(key_chars, &Escaped::of(key, self.style.hex))?;
        Escaped::of(value, self.style.hex).write(&mut self.out)?;
        self.out.write_all(b"\n")
    }

    fn padded(&mut self, chars: usize, text: &Escaped<'_>) -> io::Result<()> {
        text.write(&mut self.out)?;
        let spaces = [b' '; KEY_CHARS_MAX + GAP_CHARS];
        let count = chars.saturating_sub(text.chars()) + GAP_CHARS;
        self.out.write_all(&spaces[..count])
    }

    fn json_line(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        self.out.write_all(b"{\"key\":")?;
        self.json(key)?;
        self.out.write_all(b",\"value\":")?;
        self.json(value)?;
        self.out.write_all(b"}\n")
    }

    /// As [`text::to_json`] has it. Text that needs no escapes in a JSON string is copied without a check of each byte.
    fn json(&mut self, bytes: &[u8]) -> io::Result<()> {
        let as_it_is = |bytes: &[u8]| !bytes.iter().fold(false, |any, byte| any | matches!(byte, b'"' | b'\\'));
        if !self.style.hex && text::is_printable_ascii(bytes) && as_it_is(bytes) {
            self.out.write_all(b"\"")?;
            self.out.write_all(bytes)?;
            return self.out.write_all(b"\"");
        }
        Ok(serde_json::to_writer(&mut self.out, &text::to_json(bytes, self.style.hex))?)
    }
}

#[cfg(test)]
#[path = "entries_test.rs"]
mod tests;
