//! Headers that are for one connection only, and what a request is for.

use http::{
    HeaderMap, HeaderName, HeaderValue, Request,
    header::{CONNECTION, COOKIE, HOST, TE, TRANSFER_ENCODING, UPGRADE},
};

const HOP_BY_HOP: [HeaderName; 4] = [
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("http2-settings"),
    TRANSFER_ENCODING,
];

/// Removes what is meant for this hop only (RFC 9110, 7.6.1); `te: trailers` stays. Says to which
/// protocol the connection is to be switched, if it is; to HTTP/2 it never is (the request would be
/// answered on a stream that nobody looks into).
pub fn strip_hop_by_hop(headers: &mut HeaderMap) -> Option<HeaderValue> {
    let mut wants_upgrade = false;
    if headers.contains_key(CONNECTION) {
        let named: Vec<HeaderName> = headers
            .get_all(CONNECTION)
            .iter()
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','))
            .filter_map(|name| name.trim().parse().ok())
            .collect();
        for name in named {
            if name == UPGRADE {
                wants_upgrade = true;
            } else if name != TE {
                headers.remove(name);
            }
        }
        headers.remove(CONNECTION);
    }
    for name in HOP_BY_HOP {
        headers.remove(name);
    }
    if headers.contains_key(TE) {
        let values = headers.get_all(TE).iter();
        let mut parts = values
            .filter_map(|value| value.to_str().ok())
            .flat_map(|value| value.split(','));
        let has_trailers = parts.any(|part| part.trim().eq_ignore_ascii_case("trailers"));
        headers.remove(TE);
        if has_trailers {
            headers.insert(TE, HeaderValue::from_static("trailers"));
        }
    }
    let protocol = headers.remove(UPGRADE).filter(|_| wants_upgrade)?;
    let is_http2 = protocol
        .as_bytes()
        .split(|byte| *byte == b',')
        .any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"));
    (!is_http2).then_some(protocol)
}

/// Asks for, or confirms, another protocol on this connection.
pub fn set_upgrade(headers: &mut HeaderMap, protocol: HeaderValue) {
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, protocol);
}

/// The host that a request is for, in lower case and without a port.
pub fn host<B>(request: &Request<B>) -> Option<String> {
    let authority = match request.uri().authority() {
        Some(authority) => authority.as_str(),
        None => request.headers().get(HOST)?.to_str().ok()?,
    };
    let authority = authority
        .rsplit_once('@')
        .map_or(authority, |(_, host)| host);
    let host = match authority.strip_prefix('[') {
        Some(rest) => rest.split_once(']')?.0,
        None => authority
            .split_once(':')
            .map_or(authority, |(host, _)| host),
    };
    Some(host.to_ascii_lowercase())
}

/// The value of a cookie.
pub fn cookie<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a [u8]> {
    headers
        .get_all(COOKIE)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b';'))
        .filter_map(|pair| {
            let pair = pair.trim_ascii();
            let end = pair.iter().position(|byte| *byte == b'=')?;
            Some((&pair[..end], &pair[end + 1..]))
        })
        .find(|(known, _)| *known == name.as_bytes())
        .map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
        let line = |(name, value): &(&'static str, &'static str)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        };
        lines.iter().map(line).collect()
    }

    #[test]
    fn what_is_for_this_hop_goes_and_the_rest_stays() {
        let mut given = headers(&[
            ("connection", "close, X-Mine"),
            ("connection", "te"),
            ("x-mine", "1"),
            ("x-other", "2"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip, Trailers"),
            ("transfer-encoding", "chunked"),
            ("trailer", "x-sum"),
        ]);
        assert_eq!(strip_hop_by_hop(&mut given), None);
        let left = [("x-other", "2"), ("te", "trailers"), ("trailer", "x-sum")];
        assert_eq!(given, headers(&left));
    }

    #[test]
    fn an_upgrade_is_one_only_if_connection_says_so_and_never_to_http2() {
        let given = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "websocket"),
        ];
        let mut given = headers(&given);
        let websocket = HeaderValue::from_static("websocket");
        assert_eq!(strip_hop_by_hop(&mut given), Some(websocket));
        assert!(given.is_empty());
        assert_eq!(
            strip_hop_by_hop(&mut headers(&[("upgrade", "websocket")])),
            None
        );
        let given = [
            ("connection", "upgrade, http2-settings"),
            ("upgrade", "H2C"),
        ];
        assert_eq!(strip_hop_by_hop(&mut headers(&given)), None);
    }

    #[test]
    fn hosts_are_without_port_and_case() {
        let of = |uri: &str, host: &str| {
            let request = Request::builder()
                .uri(uri)
                .header(HOST, host)
                .body(())
                .unwrap();
            super::host(&request).unwrap()
        };
        assert_eq!(of("/", "Reviews.Demo:8080"), "reviews.demo");
        assert_eq!(of("/", "[fd00::1]:80"), "fd00::1");
        assert_eq!(of("http://u@a.b:1/", "c.d"), "a.b");
    }

    #[test]
    fn cookies_are_found() {
        let given = headers(&[("cookie", "a=1; session=x=y"), ("cookie", "b=2")]);
        assert_eq!(cookie(&given, "session"), Some(&b"x=y"[..]));
        assert_eq!(cookie(&given, "b"), Some(&b"2"[..]));
        assert_eq!(cookie(&given, "c"), None);
    }
}
