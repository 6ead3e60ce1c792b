//! Asks the servers of destinations how they are, from inside an enrolled pod.

use std::{
    fmt, io,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderValue, Method, Request, Response, Version, header};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpStream,
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{
    PodProxy,
    destinations::{Destination, Destinations, Endpoint},
    http::{Received, speak_http2},
    upstream::{self, SeenAs},
    workers,
};
use crate::{config::Protocol, pods::close_in_order, policy::health_check::CheckLimits};

/// Most of an answer that is read, in bytes.
const LARGEST_ANSWER: usize = 64 << 10;

/// How a destination's servers are checked.
#[derive(Clone, Debug, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub question: Question,
    /// From one check to the next.
    pub interval: Duration,
    /// For each.
    pub timeout: Duration,
    /// How many it takes.
    pub limits: CheckLimits,
}

/// What a server is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Question {
    /// To accept a connection.
    Tcp,
    /// For this path: 2xx and 3xx are good.
    Http(String),
    /// `grpc.health.v1.Health/Check` for this service.
    Grpc(String),
}

/// Checks under way. Dropped, they end.
#[derive(Debug, Default)]
pub struct HealthChecks {
    _tasks: JoinSet<()>,
}

impl HealthChecks {
    /// Checks the servers of all destinations that want it, from the pod that `from` gives.
    pub fn start<F>(destinations: &Destinations, from: &F) -> Self
    where
        F: Fn() -> Option<Arc<PodProxy>> + Clone + Send + 'static,
    {
        let mut tasks = JoinSet::new();
        for destination in destinations.list() {
            let Some(check) = destination.policy.health_check.clone() else {
                continue;
            };
            let check = Arc::new(check);
            for endpoint in &destination.endpoints {
                let checking = keep_checking(
                    Arc::clone(&destination),
                    Arc::clone(endpoint),
                    Arc::clone(&check),
                    from.clone(),
                );
                tasks.spawn_on(checking, &workers::in_turn());
            }
        }
        Self { _tasks: tasks }
    }
}

async fn keep_checking<F>(
    destination: Arc<Destination>,
    endpoint: Arc<Endpoint>,
    check: Arc<HealthCheck>,
    from: F,
) where
    F: Fn() -> Option<Arc<PodProxy>>,
{
    // Not all at the same moment.
    sleep(check.interval.mul_f64(rand::random::<f64>().min(0.5))).await;
    loop {
        if let Some(pod) = from() {
            let asking = ask(&pod, &destination, endpoint.address, &check.question);
            let asked = timeout(check.timeout, asking).await;
            let fault = asked.unwrap_or(Err(Fault::Timeout)).err();
            if endpoint.checked(fault.is_none(), check.limits, Instant::now()) {
                let (name, address) = (&destination.name, endpoint.address);
                match fault {
                    None => tracing::info!("destination {name}: {address} is up again"),
                    Some(fault) => tracing::warn!("destination {name}: {address} is down: {fault}"),
                }
            }
        }
        sleep(check.interval).await;
    }
}

/// What is wrong with a server.
enum Fault {
    Timeout,
    Io(io::Error),
    Http(Box<dyn std::error::Error + Send + Sync>),
    Status(http::StatusCode),
    NotServing,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Timeout => f.write_str("no answer in time"),
            Self::Io(error) => write!(f, "cannot connect: {error}"),
            Self::Http(error) => write!(f, "no good answer: {error}"),
            Self::Status(status) => write!(f, "it answers {status}"),
            Self::NotServing => f.write_str("it says that it does not serve"),
        }
    }
}

impl From<h2::Error> for Fault {
    fn from(error: h2::Error) -> Self {
        Self::Http(error.into())
    }
}

impl From<hyper::Error> for Fault {
    fn from(error: hyper::Error) -> Self {
        Self::Http(error.into())
    }
}

async fn ask(
    pod: &PodProxy,
    destination: &Destination,
    server: SocketAddr,
    question: &Question,
) -> Result<(), Fault> {
    let connecting = upstream::connect(&pod.netns, &pod.maps, server, SeenAs::Pod(None));
    let stream = connecting.await.map_err(Fault::Io)?;
    match question {
        Question::Tcp => close_in_order(&stream).map_err(Fault::Io),
        Question::Http(path) => {
            let request = request(Method::GET, server, path, Bytes::new())?;
            let status = if destination.protocol == Protocol::Http2 {
                send_http2(stream, request).await?.status()
            } else {
                send_http1(stream, request).await?.status()
            };
            if status.is_success() || status.is_redirection() {
                Ok(())
            } else {
                Err(Fault::Status(status))
            }
        }
        Question::Grpc(service) => {
            let path = "/grpc.health.v1.Health/Check";
            let mut request = request(Method::POST, server, path, grpc_question(service))?;
            let headers = request.headers_mut();
            let kind = HeaderValue::from_static("application/grpc");
            headers.insert(header::CONTENT_TYPE, kind);
            headers.insert(header::TE, HeaderValue::from_static("trailers"));
            let answer = send_http2(stream, request).await?;
            if answer.status() != http::StatusCode::OK {
                return Err(Fault::Status(answer.status()));
            }
            let body = Limited::new(answer.into_body(), LARGEST_ANSWER).collect();
            let body = body.await.map_err(Fault::Http)?.to_bytes();
            if is_serving(&body) {
                Ok(())
            } else {
                Err(Fault::NotServing)
            }
        }
    }
}

fn request(
    method: Method,
    server: SocketAddr,
    path: &str,
    body: Bytes,
) -> Result<Request<Bytes>, Fault> {
    Request::builder()
        .method(method)
        .uri(format!("http://{server}{path}"))
        .header(header::USER_AGENT, "mesh-agent-health-check")
        .body(body)
        .map_err(|error| Fault::Http(error.into()))
}

async fn send_http1(
    stream: TcpStream,
    mut request: Request<Bytes>,
) -> Result<Response<Incoming>, Fault> {
    let host = request.uri().authority().map(ToString::to_string);
    let host = host.and_then(|host| HeaderValue::from_str(&host).ok());
    request
        .headers_mut()
        .extend(host.map(|host| (header::HOST, host)));
    let close = HeaderValue::from_static("close");
    request.headers_mut().insert(header::CONNECTION, close);
    // As a client says it to a server.
    let path = request.uri().path_and_query().cloned();
    *request.uri_mut() = path.map_or_else(|| http::Uri::from_static("/"), Into::into);
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let connection = tokio::spawn(connection);
    let answer = sender.send_request(request.map(Full::new)).await;
    connection.abort();
    Ok(answer?)
}

async fn send_http2(
    stream: TcpStream,
    mut request: Request<Bytes>,
) -> Result<Response<Received>, Fault> {
    *request.version_mut() = Version::HTTP_2;
    let (sender, connection) = speak_http2(stream, Arc::default(), Arc::default()).await?;
    // Ends with the answer.
    tokio::spawn(connection);
    let (head, body) = request.into_parts();
    let head = Request::from_parts(head, ());
    let (answer, mut sending) = sender.ready().await?.send_request(head, body.is_empty())?;
    if !body.is_empty() {
        // No server's window is too small for it.
        sending.send_data(body, true)?;
    }
    let (head, body) = answer.await?.into_parts();
    let body = Received::from_server(&head.headers, body);
    Ok(Response::from_parts(head, body))
}

/// `HealthCheckRequest { service }` (grpc/health/v1/health.proto), as a message of gRPC.
fn grpc_question(service: &str) -> Bytes {
    // Field 1, with a length. The configuration allows no longer names.
    let mut message = Vec::new();
    if !service.is_empty() {
        message.extend([0x0a, service.len() as u8]);
        message.extend(service.as_bytes());
    }
    let mut framed = vec![0, 0, 0, 0, message.len() as u8];
    framed.extend(message);
    framed.into()
}

/// Whether this is `HealthCheckResponse { status: SERVING }` as a message of gRPC.
fn is_serving(body: &[u8]) -> bool {
    // Not compressed; field 1, a number: 1.
    body.first() == Some(&0) && body.get(5..) == Some(&[0x08, 0x01])
}
