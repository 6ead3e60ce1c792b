//! The servers: HTTP over the admin socket, and over TCP for metrics and health.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::{MethodRouter, get},
};
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::net::TcpListener;

use super::{AdminSocket, Report, latency, metrics, page};

/// Why a server cannot start.
#[derive(Debug, Error)]
pub enum AdminError {
    /// Another agent answers there.
    #[error(
        "agent.adminSocket: {0}: another agent answers there; stop it, or give this one another socket"
    )]
    Taken(PathBuf),
    /// Something else is there, and it is not the agent's to remove.
    #[error(
        "agent.adminSocket: {0}: a file that is no socket is there; remove it, or name another path"
    )]
    NoSocket(PathBuf),
    /// The socket cannot be made.
    #[error("agent.adminSocket: {path}: {source}")]
    Socket {
        /// Its path.
        path: PathBuf,
        /// What the kernel said.
        source: io::Error,
    },
    /// The metrics address cannot be used.
    #[error("agent.metrics: {address}: {source}; choose another address, or `off`")]
    Metrics {
        /// The address.
        address: SocketAddr,
        /// What the kernel said.
        source: io::Error,
    },
}

/// Opens the admin socket, readable by root only, and serves it. Dropping what this gives removes
/// the socket.
pub fn serve_admin(path: &Path, report: Arc<Report>) -> Result<AdminSocket, AdminError> {
    let (socket, listener) = AdminSocket::bind(path)?;
    let router = Router::new()
        .route("/status", json(Report::status))
        .route("/pods", json(Report::pods))
        .route("/destinations", json(Report::destinations))
        .route("/connections", json(Report::connections))
        .route("/latency", json(Report::latency))
        .route("/traces", get(traces))
        .route("/pod-sockets", json(Report::pod_sockets))
        .route("/metrics", get(metrics_page))
        .with_state(report);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(socket)
}

/// What is there instead of the page where others could see it.
const NO_PAGE: &str = "the page is only served at loopback addresses, since it tells the paths of requests: set \
     `agent.metrics` to one, and forward a port to it\n";

/// Serves `/metrics`, `/healthz` (the process lives), `/readyz` (every pod is enrolled), and at loopback addresses a page
/// to look at.
pub async fn serve_metrics(address: SocketAddr, report: Arc<Report>) -> Result<(), AdminError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Metrics { address, source })?;
    let router = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness));
    // It tells the paths of requests, and asks for no password.
    let router = if address.ip().is_loopback() {
        router.merge(page::router())
    } else {
        router.route("/", get(|| async { (StatusCode::NOT_FOUND, NO_PAGE) }))
    };
    let router = router.with_state(report);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Answers with what `read` gives.
pub(super) fn json<T: Serialize + Send + 'static>(
    read: fn(&Report) -> T,
) -> MethodRouter<Arc<Report>> {
    get(async move |State(report): State<Arc<Report>>| answer(move || read(&report)).await)
}

/// The same of what is no function of the report alone.
pub(super) async fn answer<T: Serialize + Send + 'static>(
    read: impl FnOnce() -> T + Send + 'static,
) -> Response {
    let read = on_thread(read).await.map(Json);
    read.ok_or(StatusCode::INTERNAL_SERVER_ERROR)
        .into_response()
}

/// Which requests are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct WhichTraces {
    pod: Option<String>,
    destination: Option<String>,
    /// At most so many.
    n: Option<usize>,
    /// Measure the next so many of the destination, whatever the share is.
    next: Option<u32>,
    /// Such ones are still waited for.
    #[serde(default)]
    waiting: bool,
}

async fn traces(
    State(report): State<Arc<Report>>,
    Query(which): Query<WhichTraces>,
) -> impl IntoResponse {
    const MOST: usize = 20;
    answer(move || {
        let (pod, destination) = (which.pod.as_deref(), which.destination.as_deref());
        // First: what nobody waits for is not measured.
        if which.waiting || which.next.is_some() {
            report.pods.latency().is_waited_for();
        }
        if let Some(next) = which.next {
            report.pods.measure_next(pod, destination, next);
        }
        latency::traces(
            report.pods.latency(),
            pod,
            destination,
            which.n.unwrap_or(MOST),
        )
    })
    .await
}

/// Runs `read` on a thread of its own: it makes a system call for every entry of a map, and the
/// runtime's threads forward connections meanwhile. `None` if it panicked.
async fn on_thread<T: Send + 'static>(read: impl FnOnce() -> T + Send + 'static) -> Option<T> {
    tokio::task::spawn_blocking(read).await.ok()
}

async fn metrics_page(State(report): State<Arc<Report>>) -> impl IntoResponse {
    const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    match on_thread(move || metrics::text(&report)).await {
        Some(Ok(text)) => (StatusCode::OK, [(header::CONTENT_TYPE, OPEN_METRICS)], text),
        _ => (
            StatusCode::INTERNAL_SERVER_ERROR,
            [(header::CONTENT_TYPE, "text/plain")],
            "the metrics could not be written as text\n".into(),
        ),
    }
}

async fn readiness(State(report): State<Arc<Report>>) -> impl IntoResponse {
    if report.ready() {
        (StatusCode::OK, "ready\n")
    } else {
        (
            StatusCode::SERVICE_UNAVAILABLE,
            "not ready: see `mesh-agent pods`\n",
        )
    }
}
