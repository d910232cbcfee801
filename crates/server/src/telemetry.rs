//! Structured logs on standard error; by default only warnings and errors.

use crate::config::ConfigError;
use std::io::IsTerminal;
use tracing_subscriber::EnvFilter;

const LEVELS: [&str; 5] = ["error", "warn", "info", "debug", "trace"];

/// Starts logging for the process. `level` is a level for Kontiki's own parts (libraries stay at `warn`), or a whole
/// `tracing` filter. Later calls of one process change nothing.
pub fn init(level: &str) -> Result<(), ConfigError> {
    let filter = filter(level)?;
    let colours = std::io::stderr().is_terminal();
    let subscriber = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(colours);
    // An earlier call, or the embedding program, has set one, which is kept.
    let _ = subscriber.try_init();
    Ok(())
}

fn filter(level: &str) -> Result<EnvFilter, ConfigError> {
    let text = match level {
        "error" => "error".to_owned(),
        level if LEVELS.contains(&level) => format!("warn,kontiki={level}"),
        filter => filter.to_owned(),
    };
    let refused = |why: String| ConfigError::Invalid {
        field: "log-level",
        value: level.to_owned(),
        accepted: format!("one of {}, or a filter such as warn,kontiki_server=debug ({why})", LEVELS.join(", ")),
    };
    // The filter would take a misspelt level for the name of a part, and log nothing else.
    let is_level = |part: &str| LEVELS.contains(&part.to_lowercase().as_str()) || part.eq_ignore_ascii_case("off");
    if let Some(part) = text.split(',').map(str::trim).find(|part| !part.contains('=') && !is_level(part)) {
        return Err(refused(format!("{part:?} is no level")));
    }
    EnvFilter::try_new(&text).map_err(|error| refused(error.to_string()))
}

#[cfg(test)]
#[path = "telemetry_test.rs"]
mod tests;
