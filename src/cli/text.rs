//! Keys and values as text.

use super::Failure;
use comfy_table::{Table, presets};
use serde_json::{Value, json};
use std::io::{self, Write};

/// What an error shows of an argument.
const ARGUMENT_CHARS_MAX: usize = 100;

/// The bytes of an argument: its text, or with `hex` the bytes of its digits.
pub fn parse(name: &str, argument: &str, hex: bool) -> Result<Vec<u8>, Failure> {
    if !hex {
        return Ok(argument.as_bytes().to_vec());
    }
    let wrong = || {
        let shown = shorten(&argument.escape_debug().to_string(), ARGUMENT_CHARS_MAX);
        let length = if argument.chars().count() > ARGUMENT_CHARS_MAX {
            format!(" ({} bytes)", argument.len())
        } else {
            String::new()
        };
        Failure::usage(format!("{name} {shown}{length}: with --hex an even number of hexadecimal digits is expected"))
    };
    let digits: Option<Vec<u8>> = argument.chars().map(|c| c.to_digit(16).map(|digit| digit as u8)).collect();
    let digits = digits.filter(|digits| digits.len().is_multiple_of(2)).ok_or_else(wrong)?;
    Ok(digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect())
}

/// Bytes for text output: text unchanged, anything else escaped; with `hex` as hexadecimal digits.
pub fn show(bytes: &[u8], hex: bool) -> String {
    if hex {
        return bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    }
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && !matches!(c, '\n' | '\t')) => text.to_string(),
        _ => bytes.iter().flat_map(|byte| std::ascii::escape_default(*byte)).map(char::from).collect(),
    }
}

/// Bytes as one line of text: printable text unchanged; in other text, control characters and backslashes escaped;
/// bytes that are not text escaped byte by byte. With `hex` as hexadecimal digits.
#[derive(Debug)]
pub enum Escaped<'a> {
    /// Printed as it is.
    Text(&'a str),
    /// Had to be changed.
    Changed(String),
}

impl<'a> Escaped<'a> {
    /// Of these bytes.
    pub fn of(bytes: &'a [u8], hex: bool) -> Escaped<'a> {
        if hex {
            return Escaped::Changed(show(bytes, true));
        }
        match std::str::from_utf8(bytes) {
            Ok(text) if is_printable(text) => Escaped::Text(text),
            Ok(text) => Escaped::Changed(text.chars().flat_map(escape).collect()),
            Err(_) => Escaped::Changed(bytes.escape_ascii().to_string()),
        }
    }

    /// How many characters it has.
    pub fn chars(&self) -> usize {
        match self {
            Escaped::Text(text) => text.chars().count(),
            Escaped::Changed(text) => text.chars().count(),
        }
    }

    /// Writes it.
    pub fn write(&self, out: &mut impl Write) -> io::Result<()> {
        match self {
            Escaped::Text(text) => out.write_all(text.as_bytes()),
            Escaped::Changed(text) => out.write_all(text.as_bytes()),
        }
    }
}

/// Whether the text has no control characters.
fn is_printable(text: &str) -> bool {
    is_printable_ascii(text.as_bytes()) || !text.chars().any(char::is_control)
}

/// Whether all bytes are printable ASCII, which most text is. Without a branch for each byte, so that the compiler can
/// vectorize it.
pub fn is_printable_ascii(bytes: &[u8]) -> bool {
    bytes.iter().fold(true, |all, byte| all & (b' '..=b'~').contains(byte))
}

fn escape(c: char) -> impl Iterator<Item = char> {
    let changed = c.is_control() || c == '\\';
    let escaped = changed.then(|| c.escape_default());
    let kept = (!changed).then_some(c);
    escaped.into_iter().flatten().chain(kept)
}

/// The text in quotes, cut to about `chars_max` characters.
pub fn shorten(text: &str, chars_max: usize) -> String {
    match text.char_indices().nth(chars_max) {
        Some((end, _)) => format!("\"{}...\"", &text[..end]),
        None => format!("\"{text}\""),
    }
}

/// Bytes for JSON output: a string if they are text, else `{"hex": "..."}`; with `hex` always a string of digits.
pub fn to_json(bytes: &[u8], hex: bool) -> Value {
    match std::str::from_utf8(bytes) {
        _ if hex => Value::String(show(bytes, true)),
        Ok(text) => Value::String(text.to_string()),
        Err(_) => json!({ "hex": show(bytes, true) }),
    }
}

/// A table without lines, so that it can be copied.
pub fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_header(header).add_rows(rows);
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

#[cfg(test)]
#[path = "text_test.rs"]
mod tests;
