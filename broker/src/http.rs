//! What operators and their tools ask over HTTP: `/metrics`, `/cost` (JSON; `/cost?top=N` for N topics instead of 100),
//! `/healthz` (the process lives), `/readyz` (it serves).

use std::sync::Arc;

use axum::Router;
use axum::extract::{RawQuery, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::cost::Costs;
use crate::metrics::Metrics;

/// OpenMetrics text, what Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Topics in `/cost`.
const TOP_TOPICS: usize = 100;

/// Whether clients are served, and if not, why not. Cheap to clone; all clones are one.
#[derive(Debug, Clone)]
pub struct Readiness(Arc<Mutex<Option<String>>>);

impl Readiness {
    pub fn not_ready(why: &str) -> Self {
        Self(Arc::new(Mutex::new(Some(why.to_owned()))))
    }

    pub fn set_ready(&self) {
        *self.0.lock() = None;
    }

    pub fn set_not_ready(&self, why: &str) {
        *self.0.lock() = Some(why.to_owned());
    }

    /// Why clients are not served.
    pub fn reason(&self) -> Option<String> {
        self.0.lock().clone()
    }
}

#[derive(Clone)]
struct Shown {
    metrics: Arc<Metrics>,
    readiness: Readiness,
    /// None where nothing is billed.
    costs: Option<Arc<Costs>>,
}

/// Serves until it is dropped. `costs` is none where nothing is billed.
pub async fn serve(
    listener: TcpListener,
    metrics: Arc<Metrics>,
    readiness: Readiness,
    costs: Option<Arc<Costs>>,
) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, readiness, costs)).await
}

fn router(metrics: Arc<Metrics>, readiness: Readiness, costs: Option<Arc<Costs>>) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/cost", get(show_cost))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, readiness, costs })
}

async fn show_cost(State(shown): State<Shown>, RawQuery(query): RawQuery) -> Response {
    let Some(costs) = shown.costs else {
        return (StatusCode::NOT_FOUND, "nothing is billed: the storage is not a bucket\n").into_response();
    };
    let top = match query.as_deref().unwrap_or_default() {
        "" => Some(TOP_TOPICS),
        query => query.strip_prefix("top=").and_then(|top| top.parse().ok()),
    };
    let Some(top) = top else {
        return (StatusCode::BAD_REQUEST, "give the number of topics as top=N\n").into_response();
    };
    match serde_json::to_string_pretty(&costs.bill(top)) {
        Ok(json) => ([(header::CONTENT_TYPE, "application/json")], json + "\n").into_response(),
        Err(error) => {
            tracing::error!(%error, "could not render the cost");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn show_metrics(State(shown): State<Shown>) -> Response {
    match shown.metrics.render() {
        Ok(text) => ([(header::CONTENT_TYPE, METRICS_TYPE)], text).into_response(),
        Err(error) => {
            tracing::error!(%error, "could not render metrics");
            StatusCode::INTERNAL_SERVER_ERROR.into_response()
        }
    }
}

async fn show_readiness(State(shown): State<Shown>) -> Response {
    match shown.readiness.reason() {
        None => "ready\n".into_response(),
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")).into_response(),
    }
}

#[cfg(test)]
mod tests;
