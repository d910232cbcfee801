//! The certificates of a node: read before anything is started, watched for changes, and reported.

use super::StartError;
use crate::config::{ServeConfig, TlsConfig};
use kontiki_env::Env;
use kontiki_tls::{ClientCertificates, Credentials, Reload};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use std::fmt::Write;
use std::sync::Arc;
use tokio::runtime::Handle;

/// The credentials that the configuration names, for the address that it advertises.
pub(super) fn credentials(env: &Env, config: &ServeConfig) -> Result<Option<Arc<Credentials>>, StartError> {
    let Some(TlsConfig { files, clients, .. }) = &config.tls else { return Ok(None) };
    Ok(Some(Credentials::of_node(env.clone(), files.clone(), config.node.address(), *clients)?))
}

/// Registers the metrics of the credentials, and reads them again when their files change, as long as they are used.
pub(super) fn watch(credentials: Option<&Arc<Credentials>>, registry: &mut Registry, runtime: &Handle) {
    let Some(credentials) = credentials else { return };
    let (expires, renewed, failed) = (Gauge::<i64>::default(), Counter::<u64>::default(), Counter::<u64>::default());
    let registry = registry.sub_registry_with_prefix("tls");
    let help = "End of this node's certificate, seconds of the Unix epoch";
    registry.register("certificate_expires_timestamp_seconds", help, expires.clone());
    registry.register("certificates_renewed", "Changes of the certificate files that were taken over", renewed.clone());
    let help = "Looks at the certificate files that found them unusable; those from before stay in use";
    registry.register("certificates_failed", help, failed.clone());
    let set_expires = move |at: Option<u64>| {
        expires.set(at.and_then(|at| i64::try_from(at).ok()).unwrap_or(0));
    };
    set_expires(credentials.expires_at());
    runtime.spawn(credentials.watch(move |reload, expires_at| {
        match reload {
            Reload::Unchanged => {}
            Reload::Renewed => drop(renewed.inc()),
            Reload::Failed(_) => drop(failed.inc()),
        }
        set_expires(expires_at);
    }));
}

/// For the message at the start: the line about certificates, and the options with which the kontiki command connects.
pub(super) fn banner(config: &ServeConfig) -> (String, String) {
    let Some(TlsConfig { files, clients, .. }) = &config.tls else { return (String::new(), String::new()) };
    let clients = match clients {
        ClientCertificates::Required => "certificates are required of clients and nodes",
        ClientCertificates::Optional => "certificates are required of nodes, not of clients",
    };
    let mut options = format!(" --ca-file {}", files.ca.display());
    if let Some((cert, key)) = &files.own {
        // Writing to a string does not fail.
        let _ = write!(options, " --cert-file {} --key-file {}", cert.display(), key.display());
    }
    (format!("\x20 TLS     {clients}\n"), options)
}
