//! Asks the running agent.

use std::{fmt::Write as _, io, path::Path, time::Duration};

use anyhow::{Context as _, bail};
use http_body_util::{BodyExt as _, Empty};
use hyper::{Request, body::Bytes, client::conn::http1};
use hyper_util::rt::TokioIo;
use serde::de::DeserializeOwned;
use tokio::net::UnixStream;

/// An agent that does not answer within this is stuck.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Asks the agent behind `socket` for `path`.
pub fn get<T: DeserializeOwned>(socket: &Path, path: &str) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let body = runtime.block_on(async {
        tokio::time::timeout(TIMEOUT, ask(socket, path))
            .await
            .with_context(|| {
                format!(
                    "{}: the agent did not answer within {TIMEOUT:?}",
                    socket.display()
                )
            })?
    })?;
    serde_json::from_slice(&body).with_context(|| {
        format!(
            "{}: not the answer of this version of mesh-agent; is the running one another version?",
            socket.display()
        )
    })
}

/// `value` as the value of a query: everything but what never means anything there is escaped.
pub fn encoded(value: &str) -> String {
    let mut text = String::with_capacity(value.len());
    for byte in value.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            text.push(byte.into());
        } else {
            let _infallible = write!(text, "%{byte:02X}");
        }
    }
    text
}

async fn ask(socket: &Path, path: &str) -> anyhow::Result<Bytes> {
    let stream = UnixStream::connect(socket)
        .await
        .map_err(|error| unreachable(socket, &error))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path)
        .header("host", "mesh-agent")
        .body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    if !response.status().is_success() {
        bail!(
            "{}: the agent answered {}",
            socket.display(),
            response.status()
        );
    }
    Ok(response.into_body().collect().await?.to_bytes())
}

fn unreachable(socket: &Path, error: &io::Error) -> anyhow::Error {
    let what = match error.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
            "no agent is running there; start it with `mesh-agent run --config FILE`, or name its \
             socket with --admin-socket"
        }
        io::ErrorKind::PermissionDenied => "only root may ask; use sudo",
        _ => return anyhow::anyhow!("{}: {error}", socket.display()),
    };
    anyhow::anyhow!("{}: {what}", socket.display())
}
