//! The status port: metrics for Prometheus, state for operators and scripts, and two probes.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | for Prometheus: its text format 0.0.4, or OpenMetrics 1.0.0 where `Accept` asks for it |
//! | `/status` | JSON: this node, its regions and their leaders, its engine |
//! | `/healthz` | 200 while the node runs; 503 with the reason once it has stopped by itself |
//! | `/readyz` | 200 when every region here has a leader; 503 with the reason otherwise |

mod lag;
mod metrics;
mod status;
mod text_format;

pub use metrics::NodeCollector;

use crate::driver::NodeHandle;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// The sources of the status port.
pub struct StatusPages {
    /// The node.
    pub node: NodeHandle,
    /// Its advertised gRPC address.
    pub address: String,
    /// All metrics.
    pub registry: Registry,
}

impl StatusPages {
    /// The pages as a service.
    pub fn into_router(self) -> Router {
        Router::new()
            .route("/", get(async || "kontiki: see /metrics /status /healthz /readyz\n"))
            .route("/metrics", get(metrics))
            .route("/status", get(async |pages: Pages| page(pages, status_page).await))
            .route("/healthz", get(async |pages: Pages| page(pages, healthz).await))
            .route("/readyz", get(async |pages: Pages| page(pages, readyz).await))
            .with_state(Arc::new(self))
    }
}

type Pages = State<Arc<StatusPages>>;

/// Creates a page on a thread that may block: a node's state is partly in its tables, and its metrics are behind locks.
async fn page(State(pages): Pages, make: impl FnOnce(&StatusPages) -> Response + Send + 'static) -> Response {
    match tokio::task::spawn_blocking(move || make(&pages)).await {
        Ok(response) => response,
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn metrics(pages: Pages, headers: HeaderMap) -> Response {
    let accept = headers.get_all(header::ACCEPT).iter().filter_map(|value| value.to_str().ok());
    let open_metrics = accept.into_iter().any(text_format::asks_for_open_metrics);
    page(pages, move |pages| metrics_page(pages, open_metrics)).await
}

fn metrics_page(pages: &StatusPages, open_metrics: bool) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.registry) {
        Ok(()) if open_metrics => ([(header::CONTENT_TYPE, text_format::OPEN_METRICS)], text).into_response(),
        Ok(()) => ([(header::CONTENT_TYPE, text_format::PLAIN)], text_format::plain(&text)).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

fn status_page(pages: &StatusPages) -> Response {
    let mut status = status::describe(&pages.node.status(), &pages.node.state().stats(), &pages.address);
    status["raft_logs"] = lag::describe(&pages.node.lag());
    Json(status).into_response()
}

fn healthz(pages: &StatusPages) -> Response {
    match pages.node.status().stopped {
        None => (StatusCode::OK, "ok\n".to_owned()).into_response(),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {reason}\n")).into_response(),
    }
}

fn readyz(pages: &StatusPages) -> Response {
    match status::not_ready(&pages.node.status()) {
        None => (StatusCode::OK, "ready\n".to_owned()).into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")).into_response(),
    }
}
