//! Calls that this server does not implement: the error names the method.
//!
//! tonic leaves the message empty. Clients try such calls again for up to 40 s, and then show their users an error
//! without a name. The same layer refuses gRPC by HTTP/1.1: one layer costs a request less than two.

use super::pages::refusal_by_http1;
use axum::Router;
use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tonic::Code;
use tonic::service::Routes;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The same services; an UNIMPLEMENTED status without a message gets one that names the method.
pub(super) fn named(routes: Router) -> Routes {
    Routes::from(routes.layer(from_fn(name_method)))
}

async fn name_method(request: Request, next: Next) -> Response {
    if let Some(refusal) = refusal_by_http1(&request) {
        return refusal;
    }
    // A copy of a few words that share the request's memory.
    let uri = request.uri().clone();
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    let is_unimplemented =
        headers.get(STATUS).is_some_and(|code| Code::from_bytes(code.as_bytes()) == Code::Unimplemented);
    if is_unimplemented && headers.get(MESSAGE).is_none_or(HeaderValue::is_empty) {
        let text = format!("this server does not implement the method {}", uri.path());
        // Paths are visible ASCII; a percent sign must be encoded again to be preserved.
        if let Ok(message) = HeaderValue::from_str(&text.replace('%', "%25")) {
            headers.insert(MESSAGE, message);
        }
    }
    response
}
