//! How a command fails.

use std::fmt;
use std::io;
use std::process::ExitCode;

/// A failed command: a text for the user, and the exit code.
#[derive(Debug)]
pub struct Failure {
    message: String,
    kind: Kind,
}

#[derive(Debug, PartialEq, Eq)]
enum Kind {
    Failed,
    Usage,
    BrokenPipe,
}

impl Failure {
    /// The operation failed: exit code 1.
    pub fn new(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), kind: Kind::Failed }
    }

    /// The arguments are wrong: exit code 2.
    pub fn usage(message: impl Into<String>) -> Failure {
        Failure { message: message.into(), kind: Kind::Usage }
    }

    /// The exit code.
    pub fn code(&self) -> ExitCode {
        ExitCode::from(if self.kind == Kind::Usage { 2 } else { 1 })
    }

    /// Whether the reader of the output has closed it.
    pub fn is_broken_pipe(&self) -> bool {
        self.kind == Kind::BrokenPipe
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

/// From writing to the terminal.
impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Failure {
        let kind = if error.kind() == io::ErrorKind::BrokenPipe { Kind::BrokenPipe } else { Kind::Failed };
        Failure { message: format!("cannot write the output: {error}"), kind }
    }
}
