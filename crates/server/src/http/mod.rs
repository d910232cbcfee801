//! The status port: numbers for Prometheus, state for people and scripts, and two probes.
//!
//! | path | what |
//! |---|---|
//! | `/metrics` | Prometheus text |
//! | `/status` | JSON: this node, its regions and their leaders, its engine |
//! | `/healthz` | 200 while the node runs; 503 with the reason once it has stopped by itself |
//! | `/readyz` | 200 when every region here has a leader; 503 with what is missing |

mod metrics;
mod status;

pub use metrics::NodeCollector;

use crate::driver::NodeHandle;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::get;
use prometheus_client::registry::Registry;
use std::sync::Arc;

/// What the status port shows.
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
            .route("/metrics", get(metrics_page))
            .route("/status", get(status_page))
            .route("/healthz", get(healthz))
            .route("/readyz", get(readyz))
            .with_state(Arc::new(self))
    }
}

async fn metrics_page(State(pages): State<Arc<StatusPages>>) -> Response {
    let mut text = String::new();
    match prometheus_client::encoding::text::encode(&mut text, &pages.registry) {
        Ok(()) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

async fn status_page(State(pages): State<Arc<StatusPages>>) -> Json<serde_json::Value> {
    Json(status::describe(&pages.node.status(), &pages.node.db().stats(), &pages.address))
}

async fn healthz(State(pages): State<Arc<StatusPages>>) -> (StatusCode, String) {
    match pages.node.status().stopped {
        None => (StatusCode::OK, "ok\n".into()),
        Some(reason) => (StatusCode::SERVICE_UNAVAILABLE, format!("stopped: {reason}\n")),
    }
}

async fn readyz(State(pages): State<Arc<StatusPages>>) -> (StatusCode, String) {
    match status::not_ready(&pages.node.status()) {
        None => (StatusCode::OK, "ready\n".into()),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("not ready: {why}\n")),
    }
}
