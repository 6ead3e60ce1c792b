//! Tells protocols apart by a client's first bytes.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Spoken {
    /// HTTP/1.0 or HTTP/1.1.
    Http1,
    /// HTTP/2, begun with its preface (RFC 9113, 3.4).
    Http2,
    /// TLS, begun with a client hello.
    Tls,
    /// Something else.
    Tcp,
}

impl fmt::Display for Spoken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Tls => "tls",
            Self::Tcp => "tcp",
        })
    }
}

/// What may still come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum More {
    /// More bytes, soon.
    Expected,
    /// Nothing: the client waits, has ended, or has sent as much as is looked at.
    Late,
}

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// No registered method is longer than `UPDATEREDIRECTREF` (17).
const LONGEST_METHOD: usize = 20;

/// What `bytes`, the first that a client sent, are the beginning of; `None` if only more of them can
/// tell.
pub fn spoken(bytes: &[u8], more: More) -> Option<Spoken> {
    let undecided = |late| match more {
        More::Expected => None,
        More::Late => Some(late),
    };
    if bytes.is_empty() {
        return undecided(Spoken::Tcp);
    }
    let compared = bytes.len().min(PREFACE.len());
    if bytes[..compared] == PREFACE[..compared] {
        return if compared == PREFACE.len() {
            Some(Spoken::Http2)
        } else {
            undecided(Spoken::Tcp)
        };
    }
    match is_client_hello(bytes) {
        Some(true) => return Some(Spoken::Tls),
        Some(false) => {}
        None => return undecided(Spoken::Tcp),
    }
    match request_line(bytes) {
        Line::Request => Some(Spoken::Http1),
        Line::Other => Some(Spoken::Tcp),
        Line::Incomplete { is_likely: true } => undecided(Spoken::Http1),
        Line::Incomplete { is_likely: false } => undecided(Spoken::Tcp),
    }
}

/// Whether `bytes`, the first that a server sent, may be the beginning of HTTP/2: servers may send their
/// SETTINGS before they have heard anything (RFC 9113, 3.4). Such a client still speaks for itself.
pub fn is_http2_server(bytes: &[u8]) -> bool {
    const SETTINGS: u8 = 4;
    // Length (three bytes, the first of which is 0 for any real list), type, flags, stream (four bytes).
    let wanted = [Some(0), None, None, Some(SETTINGS), Some(0)];
    let wanted = wanted.into_iter().chain([Some(0); 4]);
    !bytes.is_empty()
        && (bytes.iter().zip(wanted)).all(|(byte, wanted)| wanted.is_none_or(|it| it == *byte))
}

/// Whether a TLS handshake record with a client hello begins here; `None` with too few bytes.
pub fn is_client_hello(bytes: &[u8]) -> Option<bool> {
    const HANDSHAKE: u8 = 22;
    const MAJOR: u8 = 3;
    const CLIENT_HELLO: u8 = 1;
    // Record type, version (major, minor), length (two bytes), message type.
    let wanted = [
        Some(HANDSHAKE),
        Some(MAJOR),
        None,
        None,
        None,
        Some(CLIENT_HELLO),
    ];
    let fits = |(byte, wanted): (&u8, &Option<u8>)| wanted.is_none_or(|wanted| wanted == *byte);
    if !bytes.iter().zip(&wanted).all(fits) {
        return Some(false);
    }
    (bytes.len() >= wanted.len()).then_some(true)
}

enum Line {
    Request,
    Other,
    /// `is_likely`: it has a method and the beginning of a path.
    Incomplete {
        is_likely: bool,
    },
}

/// The whole line counts: `GET key` is also what Redis is asked.
fn request_line(bytes: &[u8]) -> Line {
    // Empty lines before a request are ignored (RFC 9112, 2.2).
    let start = bytes.iter().position(|byte| !matches!(byte, b'\r' | b'\n'));
    let Some(start) = start else {
        return Line::Incomplete { is_likely: false };
    };
    let bytes = &bytes[start..];
    let method = bytes.iter().position(|byte| !is_token(*byte));
    let Some(method) = method else {
        return if bytes.len() <= LONGEST_METHOD {
            Line::Incomplete { is_likely: false }
        } else {
            Line::Other
        };
    };
    if method == 0 || method > LONGEST_METHOD || bytes[method] != b' ' {
        return Line::Other;
    }
    let Some(end) = bytes.iter().position(|byte| *byte == b'\n') else {
        let is_likely = matches!(bytes.get(method + 1), Some(b'/'));
        return Line::Incomplete { is_likely };
    };
    let line = bytes[..end].strip_suffix(b"\r").unwrap_or(&bytes[..end]);
    // Whether the version is one that is understood, the HTTP server says.
    if line.windows(8).next_back().is_some_and(is_version) {
        Line::Request
    } else {
        Line::Other
    }
}

fn is_version(bytes: &[u8]) -> bool {
    matches!(bytes, [b'H', b'T', b'T', b'P', b'/', major, b'.', minor]
        if major.is_ascii_digit() && minor.is_ascii_digit())
}

/// Whether names of methods and headers may have this byte (RFC 9110, 5.6.2).
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HELLO: &[u8] = &[22, 3, 1, 0, 200, 1, 0, 0, 196];

    #[test]
    fn what_is_what() {
        let cases: [(&[u8], Spoken); 14] = [
            (b"GET / HTTP/1.1\r\n", Spoken::Http1),
            (b"\r\nGET /a?b=c HTTP/1.0\r\nHost: x\r\n", Spoken::Http1),
            (b"M-SEARCH * HTTP/1.1\r\n", Spoken::Http1),
            (b"GET http://a/ HTTP/1.1\n", Spoken::Http1),
            (b"GET / HTTP/3.7\r\n", Spoken::Http1),
            (PREFACE, Spoken::Http2),
            (HELLO, Spoken::Tls),
            (b"GET key\r\n", Spoken::Tcp),
            (b"EHLO example.org\r\n", Spoken::Tcp),
            (b"*1\r\n$4\r\nPING\r\n", Spoken::Tcp),
            (b"\0\0\0\x08\x04\xd2\x16/", Spoken::Tcp),
            (b"SSH-2.0-OpenSSH_9.2\r\n", Spoken::Tcp),
            (b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n", Spoken::Http1),
            (&[22, 3, 1, 0, 200, 2], Spoken::Tcp),
        ];
        for (bytes, expected) in cases {
            let text = String::from_utf8_lossy(bytes);
            assert_eq!(spoken(bytes, More::Expected), Some(expected), "{text}");
            assert_eq!(spoken(bytes, More::Late), Some(expected), "{text}");
        }
    }

    #[test]
    fn http2_servers_are_known_by_their_settings() {
        let settings = [0, 0, 18, 4, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 128];
        for length in 1..=settings.len() {
            assert!(is_http2_server(&settings[..length]));
        }
        let others: [&[u8]; 5] = [
            b"",
            b"220 mail.example.org ESMTP",
            b"SSH-2.0-OpenSSH_9.2",
            // MySQL's greeting.
            b"\x4a\0\0\0\x0a8.0",
            // An acknowledgement answers something.
            &[0, 0, 0, 4, 1, 0, 0, 0, 0],
        ];
        for bytes in others {
            assert!(!is_http2_server(bytes));
        }
    }

    #[test]
    fn the_deadline_decides_what_the_bytes_do_not() {
        let cases: [(&[u8], Spoken); 6] = [
            (b"", Spoken::Tcp),
            (b"GE", Spoken::Tcp),
            (b"GET ", Spoken::Tcp),
            (b"GET /very/long", Spoken::Http1),
            (&HELLO[..3], Spoken::Tcp),
            (&PREFACE[..20], Spoken::Tcp),
        ];
        for (bytes, late) in cases {
            assert_eq!(spoken(bytes, More::Expected), None);
            assert_eq!(spoken(bytes, More::Late), Some(late));
        }
    }

    proptest! {
        /// However small the segments are, they come to the same.
        #[test]
        fn a_verdict_is_never_changed_by_more_bytes(
            bytes in prop_oneof![
                prop::collection::vec(any::<u8>(), 1..64),
                "[A-Z]{1,9} /?[a-z]{0,9}( HTTP/1\\.[01])?\r?\n?".prop_map(String::into_bytes),
                (1..PREFACE.len(), prop::collection::vec(any::<u8>(), 1..9))
                    .prop_map(|(length, tail)| [&PREFACE[..length], &tail].concat()),
                (1..HELLO.len(), prop::collection::vec(any::<u8>(), 1..9))
                    .prop_map(|(length, tail)| [&HELLO[..length], &tail].concat()),
            ],
        ) {
            let whole = spoken(&bytes, More::Late);
            for length in 0..bytes.len() {
                if let Some(early) = spoken(&bytes[..length], More::Expected) {
                    prop_assert_eq!(Some(early), whole);
                    break;
                }
            }
        }
    }
}
