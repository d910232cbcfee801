//! Calls that this server does not implement: the error names the method.
//!
//! tonic leaves the message empty. Clients try such calls again for up to 40 s, and then show their users an error
//! without a name.

use axum::extract::Request;
use axum::http::HeaderValue;
use axum::middleware::{Next, from_fn};
use axum::response::Response;
use tonic::Code;
use tonic::service::Routes;

const STATUS: &str = "grpc-status";
const MESSAGE: &str = "grpc-message";

/// The same services; an UNIMPLEMENTED status without a message gets one that names the method.
pub(super) fn named(routes: Routes) -> Routes {
    Routes::from(routes.into_axum_router().layer(from_fn(name_method)))
}

async fn name_method(request: Request, next: Next) -> Response {
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
