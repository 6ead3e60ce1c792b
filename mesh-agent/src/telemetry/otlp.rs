//! Spans, sent to a collector as OTLP over HTTP in JSON (OpenTelemetry Protocol 1.0, "OTLP/HTTP";
//! attributes by the semantic conventions for HTTP, 1.23).

use std::{
    collections::BTreeMap,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use http::{Request, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{
    net::TcpStream,
    sync::{mpsc, oneshot},
    time::{sleep, timeout},
};

use super::Exchanged;

/// Spans that may wait to be sent.
const MOST_WAITING: usize = 4096;
/// Spans that are sent together.
const BATCH: usize = 512;
/// How long the first of them waits for others.
const WAIT: Duration = Duration::from_secs(1);
/// How long the collector may take.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_ANSWER: usize = 64 << 10;

/// Sends spans to a collector.
#[derive(Debug)]
pub struct Exporter {
    spans: mpsc::Sender<Message>,
    counts: Arc<Counts>,
}

enum Message {
    Span(Box<Exchanged>),
    /// To be answered once everything before it is sent.
    Sent(oneshot::Sender<()>),
}

#[derive(Debug, Default)]
struct Counts {
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Exporter {
    /// Sends to this URL. To be called inside a runtime.
    pub fn start(collector: Uri) -> Self {
        let (spans, waiting) = mpsc::channel(MOST_WAITING);
        let counts = Arc::new(Counts::default());
        tokio::spawn(export(collector, waiting, Arc::clone(&counts)));
        Self { spans, counts }
    }

    /// One more span.
    pub fn add(&self, exchanged: &Exchanged) {
        let message = Message::Span(Box::new(exchanged.clone()));
        if self.spans.try_send(message).is_err() {
            self.counts.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits until everything is sent.
    pub async fn sent(&self) {
        let (said, sent) = oneshot::channel();
        if self.spans.send(Message::Sent(said)).await.is_ok() {
            let _ended = sent.await;
        }
    }

    /// Spans that were sent, and that were not.
    pub fn counts(&self) -> (u64, u64) {
        let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
        (read(&self.counts.exported), read(&self.counts.dropped))
    }
}

async fn export(collector: Uri, mut waiting: mpsc::Receiver<Message>, counts: Arc<Counts>) {
    let mut is_reachable = true;
    while let Some(mut message) = waiting.recv().await {
        let mut batch = Vec::new();
        let mut asked = None;
        let mut until = pin!(sleep(WAIT));
        loop {
            match message {
                Message::Span(span) => batch.push(span),
                Message::Sent(said) => asked = Some(said),
            }
            if asked.is_some() || batch.len() >= BATCH {
                break;
            }
            message = tokio::select! {
                more = waiting.recv() => match more {
                    Some(more) => more,
                    None => break,
                },
                () = &mut until => break,
            };
        }
        if !batch.is_empty() {
            let count = batch.len() as u64;
            let sent = timeout(PATIENCE, send(&collector, &batch)).await;
            let fault = match sent {
                Ok(Ok(())) => None,
                Ok(Err(fault)) => Some(fault),
                Err(_late) => Some("no answer in time".into()),
            };
            let counter = match fault {
                None => &counts.exported,
                Some(_) => &counts.dropped,
            };
            counter.fetch_add(count, Ordering::Relaxed);
            if let (true, Some(fault)) = (is_reachable, &fault) {
                tracing::warn!("agent.tracing.otlp: {collector}: {fault}; spans are dropped");
            } else if !is_reachable && fault.is_none() {
                tracing::info!("agent.tracing.otlp: {collector} takes spans again");
            }
            is_reachable = fault.is_none();
        }
        if let Some(said) = asked {
            let _gone = said.send(());
        }
    }
}

type BoxError = Box<dyn std::error::Error + Send + Sync>;

async fn send(collector: &Uri, batch: &[Box<Exchanged>]) -> Result<(), BoxError> {
    let authority = collector.authority().ok_or("it names no host")?;
    let address = (authority.host(), authority.port_u16().unwrap_or(4318));
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let path = collector
        .path_and_query()
        .map_or("/v1/traces", |path| path.as_str());
    let request = Request::post(path)
        .header(header::HOST, authority.as_str())
        .header(header::CONTENT_TYPE, "application/json")
        .header(header::CONNECTION, "close")
        .body(Full::new(Bytes::from(serde_json::to_vec(&spans(batch))?)))?;
    let answer = sender.send_request(request).await?;
    let status = answer.status();
    let said = Limited::new(answer.into_body(), LARGEST_ANSWER)
        .collect()
        .await;
    connection.abort();
    if !status.is_success() {
        let said = said
            .map(http_body_util::Collected::to_bytes)
            .unwrap_or_default();
        let said = String::from_utf8_lossy(&said[..said.len().min(200)]).into_owned();
        return Err(format!("it answers {status} {}", said.trim()).into());
    }
    Ok(())
}

/// `ExportTraceServiceRequest`: the spans of each pod are a resource's.
fn spans(batch: &[Box<Exchanged>]) -> Value {
    let mut pods: BTreeMap<&str, Vec<Value>> = BTreeMap::new();
    for exchanged in batch {
        let spans = pods.entry(&*exchanged.pod).or_default();
        spans.extend(span(exchanged));
    }
    let scope = json!({"name": "mesh-agent", "version": env!("CARGO_PKG_VERSION")});
    let resources: Vec<Value> = pods
        .into_iter()
        .map(|(pod, spans)| {
            json!({
                "resource": {"attributes": [text("service.name", pod)]},
                "scopeSpans": [{"scope": scope, "spans": spans}],
            })
        })
        .collect();
    json!({ "resourceSpans": resources })
}

fn text(key: &str, value: &str) -> Value {
    json!({"key": key, "value": {"stringValue": value}})
}

fn number(key: &str, value: u64) -> Value {
    // 64-bit numbers are texts in protobuf's JSON.
    json!({"key": key, "value": {"intValue": value.to_string()}})
}

fn span(exchanged: &Exchanged) -> Option<Value> {
    const SERVER: u8 = 2;
    const CLIENT: u8 = 3;
    const STATUS_UNSET: u8 = 0;
    const STATUS_ERROR: u8 = 2;
    let span = exchanged.span?;
    let nanos = |time: SystemTime| {
        let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
        since.as_nanos().to_string()
    };
    let status = exchanged.status;
    // A client's fault is no error of the server's.
    let is_error = status.is_server_error()
        || !exchanged.is_inbound && status.is_client_error()
        || !exchanged.is_whole
        || exchanged.grpc_status.is_some_and(|status| status != 0);
    let version = match exchanged.version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        _ => "1.1",
    };
    let mut attributes = vec![
        text("http.request.method", exchanged.method.as_str()),
        text("url.path", &exchanged.path),
        number("http.response.status_code", status.as_u16().into()),
        text("network.protocol.version", version),
        text("mesh.destination", &exchanged.destination),
        number("mesh.tries", exchanged.tries.into()),
    ];
    attributes.extend(
        exchanged
            .host
            .as_deref()
            .map(|host| text("server.address", host)),
    );
    if let Some(endpoint) = exchanged.endpoint {
        attributes.push(text("network.peer.address", &endpoint.ip().to_string()));
        attributes.push(number("network.peer.port", endpoint.port().into()));
    }
    if let Some(status) = exchanged.grpc_status {
        attributes.push(number("rpc.grpc.status_code", status.into()));
    }
    if is_error {
        let why = match exchanged.reason {
            Some(reason) => reason.to_owned(),
            None if status == StatusCode::OK => "incomplete".to_owned(),
            None => status.as_u16().to_string(),
        };
        attributes.push(text("error.type", &why));
    }
    let is_call = exchanged.grpc_status.is_some();
    Some(json!({
        "traceId": format!("{:032x}", span.trace),
        "spanId": format!("{:016x}", span.id),
        "parentSpanId": span.parent.map_or_else(String::new, |id| format!("{id:016x}")),
        "name": if is_call { exchanged.path.trim_start_matches('/') } else { exchanged.method.as_str() },
        "kind": if exchanged.is_inbound { SERVER } else { CLIENT },
        "startTimeUnixNano": nanos(exchanged.begun),
        "endTimeUnixNano": nanos(exchanged.begun + exchanged.took),
        "attributes": attributes,
        "status": {"code": if is_error { STATUS_ERROR } else { STATUS_UNSET }},
    }))
}
