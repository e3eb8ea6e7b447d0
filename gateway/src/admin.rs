//! The admin port: probes, metrics, configuration and status (kubernetes specification §8.1, §12).

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// Whether the process takes traffic; one flag per reason not to.
#[derive(Debug, Default)]
pub struct Readiness {
    configured: AtomicBool,
    listening: AtomicBool,
    draining: AtomicBool,
}

impl Readiness {
    /// Says that a configuration is in force.
    pub fn set_configured(&self) {
        self.configured.store(true, Ordering::Release);
    }

    /// Says that every listener is bound.
    pub fn set_listening(&self) {
        self.listening.store(true, Ordering::Release);
    }

    /// Says that the process is on its way out.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Tells whether the process is on its way out.
    pub fn is_draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Returns why the process is not ready, `None` when it is.
    pub fn obstacle(&self) -> Option<&'static str> {
        if self.is_draining() {
            Some("draining")
        } else if !self.configured.load(Ordering::Acquire) {
            Some("no configuration yet")
        } else if !self.listening.load(Ordering::Acquire) {
            Some("listeners are not bound yet")
        } else {
            None
        }
    }
}

/// Where the admin port gets its documents from.
pub trait Report: Send + Sync + 'static {
    /// Returns the document of `/v1/config`: what is in force and the last error.
    fn config(&self) -> Value;
    /// Returns the document of `/v1/status`: objects with conditions, links, peers, store.
    fn status(&self) -> Value;
}

#[derive(Clone)]
struct Admin {
    readiness: Arc<Readiness>,
    metrics: Arc<Metrics>,
    report: Arc<dyn Report>,
}

/// Binds the admin port; [`serve`] answers on it.
///
/// # Errors
///
/// The system's error when the address is taken or not ours.
pub async fn bind(addr: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(addr).await
}

/// Answers on the admin port until the process ends.
pub async fn serve(listener: TcpListener, readiness: Arc<Readiness>, metrics: Arc<Metrics>, report: Arc<dyn Report>) {
    let router = Router::new()
        .route("/livez", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(render_metrics))
        .route("/v1/config", get(config))
        .route("/v1/status", get(status))
        .with_state(Admin { readiness, metrics, report });
    if let Err(error) = axum::serve(listener, router).await {
        tracing::error!(%error, "admin port");
    }
}

async fn readyz(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.readiness.obstacle() {
        None => (StatusCode::OK, "ok\n".to_owned()),
        Some(obstacle) => (StatusCode::SERVICE_UNAVAILABLE, format!("{obstacle}\n")),
    }
}

async fn render_metrics(State(admin): State<Admin>) -> impl IntoResponse {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], admin.metrics.render())
}

async fn config(State(admin): State<Admin>) -> impl IntoResponse {
    axum::Json(admin.report.config())
}

async fn status(State(admin): State<Admin>) -> impl IntoResponse {
    axum::Json(admin.report.status())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn readiness_needs_configuration_and_listeners_and_ends_with_the_drain() {
        let readiness = Readiness::default();
        assert_eq!(readiness.obstacle(), Some("no configuration yet"));
        readiness.set_configured();
        assert_eq!(readiness.obstacle(), Some("listeners are not bound yet"));
        readiness.set_listening();
        assert_eq!(readiness.obstacle(), None);
        readiness.set_draining();
        assert_eq!(readiness.obstacle(), Some("draining"));
    }
}
