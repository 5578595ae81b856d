//! What operators and their tools ask over HTTP: `/metrics`, `/healthz` (the process lives), `/readyz` (it serves).

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use parking_lot::Mutex;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// OpenMetrics text, what Prometheus asks for.
const METRICS_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

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
}

/// Serves until it is dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>, readiness: Readiness) -> std::io::Result<()> {
    axum::serve(listener, router(metrics, readiness)).await
}

pub fn router(metrics: Arc<Metrics>, readiness: Readiness) -> Router {
    Router::new()
        .route("/metrics", get(show_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(show_readiness))
        .with_state(Shown { metrics, readiness })
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
