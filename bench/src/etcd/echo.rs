//! A bare unary gRPC server in a process of its own: what a call costs that does nothing.

use super::wire::Echo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::task::{Context, Poll};
use tonic::codegen::{BoxFuture, Service, http};
use tonic::server::{NamedService, UnaryService};
use tonic::{Request, Response, Status, body::Body};
use tonic_prost::ProstCodec;

#[derive(clap::Args)]
pub struct Arguments {
    /// Where it listens.
    address: SocketAddr,
    /// Bytes of an answer.
    answer_bytes: usize,
}

#[derive(Clone)]
struct Answer(Vec<u8>);

impl UnaryService<Echo> for Answer {
    type Response = Echo;
    type Future = std::future::Ready<Result<Response<Echo>, Status>>;

    fn call(&mut self, _: Request<Echo>) -> Self::Future {
        std::future::ready(Ok(Response::new(Echo { body: self.0.clone() })))
    }
}

impl NamedService for Answer {
    const NAME: &'static str = "bench.Echo";
}

impl Service<http::Request<Body>> for Answer {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        let answer = self.clone();
        Box::pin(async move {
            let codec: ProstCodec<Echo, Echo> = ProstCodec::default();
            Ok(tonic::server::Grpc::new(codec).unary(answer, request).await)
        })
    }
}

/// Serves until the process is ended. One thread, as the nodes of the comparison have about one each.
pub fn run(arguments: &Arguments) {
    let runtime =
        tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().expect("a runtime");
    let answer = Answer(vec![7; arguments.answer_bytes]);
    let served = tonic::transport::Server::builder().tcp_nodelay(true).add_service(answer).serve(arguments.address);
    runtime.block_on(served).expect("serves");
}

/// The process; ended when dropped.
pub struct EchoServer {
    pub address: String,
    child: Child,
}

impl EchoServer {
    pub fn start(address: String, answer_bytes: usize) -> EchoServer {
        let own: PathBuf = std::env::current_exe().expect("this program has a path");
        let mut command = Command::new(own);
        command.args(["echo-server", &address, &answer_bytes.to_string()]).stdin(Stdio::null());
        EchoServer { address, child: command.spawn().expect("this program starts again") }
    }

    pub fn process(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for EchoServer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
