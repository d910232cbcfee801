//! PD's read-only pages, on the port of gRPC.
//!
//! The port takes HTTP/1.1 for them and for nothing else: a request by HTTP/1.1 to a path of a service is refused with
//! a text, since gRPC needs HTTP/2. By HTTP/2 the pages can be read too.

use crate::api::Node;
use crate::pd::{PageError, Pd, PdError};
use axum::Router;
use axum::extract::{Path, Request, State};
use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{StatusCode, Version};
use axum::response::{IntoResponse, Json, Response};
use axum::routing::{any, get};
use serde_json::Value;

const PREFIX: &str = "/pd/";
/// When a client may ask again for a page that is made for another one.
const RETRY_AFTER_SECONDS: &str = "5";

/// The pages.
pub(super) fn pages<N: Node>(pd: Pd<N>) -> Router {
    Router::new()
        .route("/pd/api/v1/version", get(async |State(pd): State<Pd<N>>| Json(pd.version_page())))
        .route("/pd/api/v1/members", get(async |State(pd): State<Pd<N>>| answer(pd.members_page().await)))
        .route("/pd/api/v1/health", get(async |State(pd): State<Pd<N>>| answer(pd.health_page().await)))
        .route("/pd/api/v1/stores", get(async |State(pd): State<Pd<N>>| answer(pd.stores_page().await)))
        .route("/pd/api/v1/store/{id}", get(store))
        .route("/pd/api/v1/regions", get(regions))
        .route("/pd/api/v1/region/id/{id}", get(region))
        .route("/pd/{*rest}", any(unknown))
        .with_state(pd)
}

/// Written as JSON already.
async fn regions<N: Node>(State(pd): State<Pd<N>>) -> Response {
    match pd.regions_page().await {
        Ok(page) => ([(CONTENT_TYPE, "application/json")], page).into_response(),
        Err(error) => refusal(&error),
    }
}

async fn store<N: Node>(State(pd): State<Pd<N>>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => answer(pd.store_page(id).await),
        Err(_) => not_an_id(&id),
    }
}

async fn region<N: Node>(State(pd): State<Pd<N>>, Path(id): Path<String>) -> Response {
    match id.parse() {
        Ok(id) => answer(pd.region_page(id).await),
        Err(_) => not_an_id(&id),
    }
}

fn not_an_id(id: &str) -> Response {
    text(StatusCode::BAD_REQUEST, &format!("{id:?} is no id; an id is a whole number"))
}

fn answer(page: Result<Value, PageError>) -> Response {
    match page {
        Ok(page) => Json(page).into_response(),
        Err(error) => refusal(&error),
    }
}

fn refusal(error: &PageError) -> Response {
    let code = match error {
        PageError::NotFound(_) => StatusCode::NOT_FOUND,
        PageError::TooLarge(_) => StatusCode::UNPROCESSABLE_ENTITY,
        PageError::Busy(_) => {
            let later = [(RETRY_AFTER, RETRY_AFTER_SECONDS)];
            return (later, text(StatusCode::SERVICE_UNAVAILABLE, &error.to_string())).into_response();
        }
        PageError::Pd(PdError::Invalid(_) | PdError::WrongCluster { .. }) => StatusCode::BAD_REQUEST,
        PageError::Pd(PdError::Internal(_)) => StatusCode::INTERNAL_SERVER_ERROR,
        PageError::Pd(_) => StatusCode::SERVICE_UNAVAILABLE,
    };
    text(code, &error.to_string())
}

async fn unknown() -> Response {
    let pages = "version, members, health, stores, store/ID, regions and region/id/ID, below /pd/api/v1/, by GET";
    text(StatusCode::NOT_FOUND, &format!("this server has no such page; it has {pages}"))
}

fn text(code: StatusCode, text: &str) -> Response {
    (code, format!("{text}\n")).into_response()
}

/// The refusal of a request by HTTP/1.1 to anything but the pages.
pub(super) fn refusal_by_http1(request: &Request) -> Option<Response> {
    if request.version() == Version::HTTP_2 || request.uri().path().starts_with(PREFIX) {
        return None;
    }
    let what = "this port serves gRPC, which needs HTTP/2, and PD's pages below /pd/api/v1/; /metrics and /status are on \
                the status port";
    Some(text(StatusCode::NOT_FOUND, what))
}

#[cfg(test)]
#[path = "pages_test.rs"]
mod tests;
