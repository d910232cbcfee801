//! The certificates of a command that asks a node.

use super::Failure;
use clap::Args;
use kontiki_env::Env;
use kontiki_tls::{Channel, Credentials, TlsFiles};
use std::path::PathBuf;
use std::sync::Arc;

/// The files; without any, connections are in plain text.
#[derive(Args, Clone, Debug, Default)]
pub struct TlsOptions {
    /// Connect by TLS: PEM file with the certificates of the authorities that sign those of the nodes
    #[arg(long, value_name = "FILE", env = "KONTIKI_CA_FILE")]
    ca_file: Option<PathBuf>,
    /// PEM file with this client's certificate, where the nodes require one
    #[arg(long, value_name = "FILE", env = "KONTIKI_CERT_FILE")]
    cert_file: Option<PathBuf>,
    /// PEM file with the private key of --cert-file, without a passphrase
    #[arg(long, value_name = "FILE", env = "KONTIKI_KEY_FILE")]
    key_file: Option<PathBuf>,
}

impl TlsOptions {
    /// The files, if these options belong together.
    pub fn files(&self) -> Result<Option<TlsFiles>, Failure> {
        let files = TlsFiles::of_client(self.ca_file.clone(), self.cert_file.clone(), self.key_file.clone());
        files.map_err(|error| Failure::usage(error.to_string()))
    }

    /// What the files contain.
    pub fn credentials(&self) -> Result<Option<Arc<Credentials>>, Failure> {
        let credentials = self.files()?.map(|files| Credentials::of_client(Env::real(), files));
        credentials.transpose().map_err(|error| Failure::usage(error.to_string()))
    }
}

/// Connects to a node; the error says why not.
pub async fn connect(node: &str, credentials: Option<&Arc<Credentials>>) -> Result<Channel, Failure> {
    let connected = kontiki_tls::connect(node, credentials, |endpoint| endpoint).await;
    connected.map_err(|error| match kontiki_tls::refusal(&error) {
        Some(refusal) => Failure::usage(refusal),
        None => Failure::new(format!("cannot connect to {node}: {}", kontiki_tls::describe(&error))),
    })
}
