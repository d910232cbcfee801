//! `kontiki scan`.

use super::data::Place;
use super::entries::{Printer, Style};
use super::source::{Keys, Wanted};
use super::{Failure, text};
use clap::Args;
use kontiki::Range;

/// Arguments of `kontiki scan`.
#[derive(Args, Debug)]
pub struct Scan {
    /// The first key [default: the first in the range of keys]
    start: Option<String>,
    /// The key to stop before [default: none]
    end: Option<String>,
    /// Keys that start with this, instead of START and END
    #[arg(long, conflicts_with_all = ["start", "end"])]
    prefix: Option<String>,
    /// Maximum number of keys
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..))]
    limit: u64,
    /// Without a limit: keys are printed as they are read
    #[arg(long, conflicts_with = "limit")]
    all: bool,
    /// From the last key of the range to the first
    #[arg(long)]
    reverse: bool,
    /// Print one JSON object per line for programs
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    keys: Keys,
    #[command(flatten)]
    place: Place,
}

impl Scan {
    /// Prints a line, or a line of JSON, for each entry.
    pub fn run(self) -> Result<(), Failure> {
        let (start, end) = self.range()?;
        let limit = if self.all { usize::MAX } else { usize::try_from(self.limit).unwrap_or(usize::MAX) };
        let wanted = Wanted { start, end, limit, reverse: self.reverse };
        let source = self.place.source(&self.keys)?;
        let style = Style { hex: self.place.hex, json: self.json };
        let mut printer = Printer::new(std::io::stdout().lock(), style);
        let mut printed = 0;
        source.scan(&wanted, &mut |key, value| {
            printed += 1;
            Ok(printer.entry(key, value)?)
        })?;
        printer.finish()?;
        if printed == limit && !self.json {
            eprintln!("{printed} keys, the limit; there may be more (--limit, --all)");
        }
        Ok(())
    }

    fn range(&self) -> Result<(Vec<u8>, Option<Vec<u8>>), Failure> {
        let parse = |name: &str, argument: &String| text::parse(name, argument, self.place.hex);
        if let Some(prefix) = &self.prefix {
            let start = parse("PREFIX", prefix)?;
            let end = Range::prefix(&start).end.map(|end| end.to_vec());
            return Ok((start, end));
        }
        let start = self.start.as_ref().map(|start| parse("START", start)).transpose()?.unwrap_or_default();
        let end = self.end.as_ref().map(|end| parse("END", end)).transpose()?.filter(|end| !end.is_empty());
        Ok((start, end))
    }
}
