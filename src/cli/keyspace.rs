//! `kontiki keyspace`: the keyspaces of a cluster, for clients that use version 2 of the API.

use super::remote::{Endpoint, TIMEOUT, refused, too_slow};
use super::{Failure, block_on, text, tls};
use clap::{Args, Subcommand};
use kontiki_proto::keyspacepb::keyspace_client::KeyspaceClient;
use kontiki_proto::keyspacepb::{CreateKeyspaceRequest, GetAllKeyspacesRequest, KeyspaceMeta};
use kontiki_proto::pdpb;
use kontiki_tls::Channel;
use serde_json::json;
use std::io::Write;

/// Arguments of `kontiki keyspace`.
#[derive(Args, Debug)]
pub struct Keyspace {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Create a keyspace; it exists on all nodes when the command ends
    Create(Create),
    /// List all keyspaces; DEFAULT, with id 0, always exists
    List(List),
}

#[derive(Args, Debug)]
struct Create {
    /// Its name: 1 to 20 letters, digits, underscores and hyphens
    name: String,
    #[command(flatten)]
    endpoint: Endpoint,
}

#[derive(Args, Debug)]
struct List {
    #[command(flatten)]
    endpoint: Endpoint,
    /// Print JSON for programs
    #[arg(long)]
    json: bool,
}

impl Keyspace {
    /// Creates or lists.
    pub fn run(self) -> Result<(), Failure> {
        match self.command {
            Command::Create(create) => create.run(),
            Command::List(list) => list.run(),
        }
    }
}

impl Create {
    fn run(self) -> Result<(), Failure> {
        let request = CreateKeyspaceRequest { header: None, name: self.name };
        let answer = block_on(async {
            let (node, mut client) = connect(&self.endpoint).await?;
            let answer = tokio::time::timeout(TIMEOUT, client.create_keyspace(request)).await;
            let answer = answer.map_err(|_| too_slow(&[&node]))?;
            Ok(answer.map_err(|status| refused(&node, &status))?.into_inner())
        })?;
        let keyspace = answer.keyspace.filter(|_| error(answer.header.as_ref()).is_none());
        let Some(keyspace) = keyspace else {
            let why = error(answer.header.as_ref()).map_or("the answer names no keyspace", |error| &error.message);
            return Err(Failure::new(format!("not created: {why}")));
        };
        writeln!(std::io::stdout().lock(), "keyspace {} has the id {}", keyspace.name, keyspace.id)?;
        Ok(())
    }
}

impl List {
    fn run(self) -> Result<(), Failure> {
        let request = GetAllKeyspacesRequest::default();
        let answer = block_on(async {
            let (node, mut client) = connect(&self.endpoint).await?;
            let answer = tokio::time::timeout(TIMEOUT, client.get_all_keyspaces(request)).await;
            let answer = answer.map_err(|_| too_slow(&[&node]))?;
            Ok(answer.map_err(|status| refused(&node, &status))?.into_inner())
        })?;
        let mut out = std::io::stdout().lock();
        if self.json {
            let keyspace = |found: &KeyspaceMeta| json!({ "id": found.id, "name": found.name, "state": state(found) });
            writeln!(out, "{:#}", json!(answer.keyspaces.iter().map(keyspace).collect::<Vec<_>>()))?;
            return Ok(());
        }
        let row = |found: &KeyspaceMeta| vec![found.id.to_string(), found.name.clone(), state(found)];
        writeln!(out, "{}", text::table(&["ID", "NAME", "STATE"], answer.keyspaces.iter().map(row)))?;
        Ok(())
    }
}

fn state(keyspace: &KeyspaceMeta) -> String {
    keyspace.state().as_str_name().to_lowercase()
}

fn error(header: Option<&pdpb::ResponseHeader>) -> Option<&pdpb::Error> {
    header.and_then(|header| header.error.as_ref())
}

/// The first node that accepts a connection: any node answers for the cluster.
async fn connect(endpoint: &Endpoint) -> Result<(String, KeyspaceClient<Channel>), Failure> {
    let nodes = endpoint.nodes().await?;
    let credentials = endpoint.credentials()?;
    let mut failure = too_slow(&nodes);
    for node in nodes {
        match tls::connect(node, credentials.as_ref()).await {
            Ok(channel) => return Ok((node.to_owned(), KeyspaceClient::new(channel))),
            Err(error) => failure = error,
        }
    }
    Err(failure)
}
