//! The page at `/` of the metrics port, and the JSON that it reads.
//!
//! It is one file without anything from elsewhere, and its policy lets it load nothing. Reading changes nothing
//! in the agent: what does (`/traces?next=`) is only at the admin socket, which is root's.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use axum::{
    Router,
    extract::{Query, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::get,
};
use serde::Deserialize;

use super::{
    Report, latency,
    server::{answer, json},
};

const PAGE: &str = include_str!("index.html");
/// What stands in the page where its nonce belongs.
const NONCE: &str = "{{nonce}}";
/// Most requests that are told at once.
const MOST_TRACES: usize = 100;

/// The page, and what it reads.
pub(super) fn router() -> Router<Arc<Report>> {
    Router::new()
        .route("/", get(page))
        .route("/api/status", json(Report::status))
        .route("/api/destinations", json(Report::destinations))
        .route("/api/latency", json(Report::latency))
        .route("/api/traces", get(traces))
        .layer(middleware::from_fn(guard))
}

/// Answers only to who asked for this machine by address or as `localhost`, and lets nobody embed the answer.
///
/// A page of somebody else's could otherwise have its own name resolve to 127.0.0.1 once it is loaded (DNS
/// rebinding), and read what is told here.
async fn guard(request: Request, next: Next) -> Response {
    let host = request.headers().get(header::HOST);
    if !host.is_some_and(|host| host.to_str().is_ok_and(is_own)) {
        let text = "ask by IP address, or as localhost\n";
        return (StatusCode::MISDIRECTED_REQUEST, text).into_response();
    }
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CACHE_CONTROL, "no-store"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
        (
            header::HeaderName::from_static("cross-origin-resource-policy"),
            "same-origin",
        ),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Whether a host, with or without a port, is an IP address or `localhost`.
fn is_own(host: &str) -> bool {
    if host.parse::<SocketAddr>().is_ok() {
        return true;
    }
    let name = match host.rsplit_once(':') {
        Some((name, port)) if !host.ends_with(']') && port.parse::<u16>().is_ok() => name,
        _ => host,
    };
    let unbracketed = name.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    match unbracketed {
        Some(v6) => v6.parse::<std::net::Ipv6Addr>().is_ok(),
        None => {
            name.eq_ignore_ascii_case("localhost")
                || name.parse::<IpAddr>().is_ok_and(|it| it.is_ipv4())
        }
    }
}

async fn page() -> impl IntoResponse {
    let nonce = format!("{:032x}", rand::random::<u128>());
    let policy = format!(
        "default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8".to_owned()),
            (header::CONTENT_SECURITY_POLICY, policy),
        ],
        PAGE.replace(NONCE, &nonce),
    )
}

/// Which requests are asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Which {
    pod: Option<String>,
    destination: Option<String>,
    n: Option<usize>,
}

async fn traces(State(report): State<Arc<Report>>, Query(which): Query<Which>) -> Response {
    let most = which.n.unwrap_or(20).min(MOST_TRACES);
    answer(move || {
        let (pod, destination) = (which.pod.as_deref(), which.destination.as_deref());
        latency::traces(report.pods.latency(), pod, destination, most)
    })
    .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_and_localhost_are_own() {
        for own in [
            "127.0.0.1:15020",
            "127.0.0.1",
            "[::1]:15020",
            "[::1]",
            "localhost:15020",
            "LOCALHOST",
            "10.0.0.7:8080",
        ] {
            assert!(is_own(own), "{own}");
        }
        for other in [
            "evil.example:15020",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "",
            ":15020",
            "[evil]",
            "[127.0.0.1]",
            "localhost:port",
            "::1",
        ] {
            assert!(!is_own(other), "{other}");
        }
    }

    #[test]
    fn the_page_takes_nothing_from_elsewhere() {
        for elsewhere in [
            "http://",
            "https://",
            "src=",
            "@import",
            "url(",
            "innerHTML",
        ] {
            let allowed = PAGE.replace("http://www.w3.org/2000/svg", "");
            assert!(!allowed.contains(elsewhere), "{elsewhere}");
        }
        assert_eq!(PAGE.matches(NONCE).count(), 2, "one style, one script");
    }
}
