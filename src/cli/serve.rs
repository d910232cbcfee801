//! `kontiki serve`: a node in the foreground.

use super::cluster::Interrupts;
use super::{Failure, block_on};
use clap::Args;
use kontiki_env::fs::RealFs;
use kontiki_server::config::ServeArgs;
use kontiki_server::node::Server;
use kontiki_server::telemetry;
use std::io::{Read, Write};
use std::sync::mpsc;
use tokio::sync::oneshot;

/// Arguments of `kontiki serve`.
#[derive(Args, Debug)]
pub struct Serve {
    #[command(flatten)]
    args: ServeArgs,
    /// End when the standard input ends; `kontiki cluster` uses this for its nodes
    #[arg(long, hide = true)]
    stop_with_stdin: bool,
}

impl Serve {
    /// Runs until it is interrupted, or until the node stops by itself, which is a failure.
    pub fn run(self) -> Result<(), Failure> {
        let config = self.args.resolve(&RealFs).map_err(|error| Failure::usage(error.to_string()))?;
        telemetry::init(&config.log_level).map_err(|error| Failure::usage(error.to_string()))?;
        // Before the node reports that it is ready: from then on a signal must cause a clean shutdown.
        let (interrupted, again) = interrupted();
        let server = Server::start(config).map_err(|error| match error {
            error if error.is_asked_wrongly() => Failure::usage(error.to_string()),
            error => Failure::new(error.to_string()),
        })?;
        writeln!(std::io::stdout(), "{}", server.banner())?;
        let lifeline = self.stop_with_stdin.then(stdin_ended);
        let asked = async move {
            match lifeline {
                Some(ended) => tokio::select! {
                    () = sent(interrupted) => {}
                    _ = ended => {}
                },
                None => sent(interrupted).await,
            }
        };
        server.run(asked, sent(again)).map_err(|error| Failure::new(error.to_string()))
    }
}

/// Resolve when a first, and when a second signal asks the process to end, including earlier ones. Signals are handled
/// from the moment when it returns.
#[allow(clippy::disallowed_methods)] // the node's own runtime starts later
fn interrupted() -> (oneshot::Receiver<()>, oneshot::Receiver<()>) {
    let ((ask, asked), (hurry, hurried)) = (oneshot::channel::<()>(), oneshot::channel::<()>());
    let (ready, listening) = mpsc::channel::<()>();
    std::thread::spawn(move || {
        let listen = async {
            let interrupts = Interrupts::listen();
            drop(ready);
            match interrupts {
                Ok(mut interrupts) => {
                    interrupts.next().await;
                    let _ = ask.send(()); // an error means that the node has ended by itself
                    interrupts.next().await;
                    let _ = hurry.send(());
                }
                // Without handlers a signal ends the process at once, which is safe too.
                Err(_) => std::future::pending().await,
            }
            Ok(())
        };
        // An error: there is no runtime; the node's own start reports this with more detail, and no signal is sent.
        let _ = block_on(listen);
    });
    let _ = listening.recv(); // its end is the signal
    (asked, hurried)
}

/// Done when the signal is sent; never if it cannot be any more.
async fn sent(signal: oneshot::Receiver<()>) {
    if signal.await.is_err() {
        std::future::pending().await
    }
}

/// Resolves when the standard input ends.
#[allow(clippy::disallowed_methods)] // reading it blocks, so it takes a thread, which ends with the process
fn stdin_ended() -> oneshot::Receiver<()> {
    let (alive, ended) = oneshot::channel::<()>();
    std::thread::spawn(move || {
        let mut ignored = [0; 64];
        while matches!(std::io::stdin().read(&mut ignored), Ok(count) if count > 0) {}
        drop(alive);
    });
    ended
}
