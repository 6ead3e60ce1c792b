//! The servers: HTTP over the admin socket, and over TCP for metrics and health.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use axum::{
    Json, Router,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
    routing::{MethodRouter, get},
};
use serde::Serialize;
use thiserror::Error;
use tokio::net::TcpListener;

use super::{AdminSocket, Report, metrics};

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
        .route("/pod-sockets", json(Report::pod_sockets))
        .route("/metrics", get(metrics_page))
        .with_state(report);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(socket)
}

/// Serves `/metrics`, `/healthz` (the process lives) and `/readyz` (every pod is enrolled).
pub async fn serve_metrics(address: SocketAddr, report: Arc<Report>) -> Result<(), AdminError> {
    let listener = TcpListener::bind(address)
        .await
        .map_err(|source| AdminError::Metrics { address, source })?;
    let router = Router::new()
        .route("/metrics", get(metrics_page))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readiness))
        .with_state(report);
    tokio::spawn(async move { axum::serve(listener, router).await });
    Ok(())
}

/// Answers with what `read` gives.
fn json<T: Serialize + Send + 'static>(read: fn(&Report) -> T) -> MethodRouter<Arc<Report>> {
    get(async move |State(report): State<Arc<Report>>| {
        on_thread(move || read(&report))
            .await
            .map(Json)
            .ok_or(StatusCode::INTERNAL_SERVER_ERROR)
    })
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
