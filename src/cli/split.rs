//! `kontiki split`: makes regions begin at keys.

use super::remote::Endpoint;
use super::{Failure, block_on, text};
use clap::Args;

/// Arguments of `kontiki split`.
#[derive(Args, Debug)]
pub struct Split {
    /// Keys at which a region begins afterwards. Raw keys that share their first eight bytes stay in one region: it
    /// begins behind the last of them
    #[arg(required = true, value_name = "KEY")]
    keys: Vec<String>,
    /// The keys are those of transactions
    #[arg(long)]
    transactional: bool,
    /// Keys are hexadecimal digits
    #[arg(long)]
    hex: bool,
    #[command(flatten)]
    endpoint: Endpoint,
}

impl Split {
    /// Splits; returns when the regions exist.
    pub fn run(self) -> Result<(), Failure> {
        let keys = self.keys.iter().map(|key| text::parse("KEY", key, self.hex)).collect::<Result<_, _>>()?;
        block_on(self.endpoint.split(self.transactional, keys))
    }
}
