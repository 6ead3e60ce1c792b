//! Requests, and where in a connection's bytes they are.

use std::ops::Range;

use proptest::prelude::*;

/// A request of a connection.
#[derive(Clone, Debug)]
pub struct Request {
    /// It, and empty lines that may precede it.
    pub text: String,
    /// Offset of its first byte.
    pub begin: usize,
    /// Offset after its head.
    pub head_end: usize,
    /// Offset after its last byte.
    pub end: usize,
}

#[derive(Clone, Debug)]
enum Body {
    None,
    Length(usize),
    /// The lengths of chunks, and whether trailers follow.
    Chunked(Vec<usize>, bool),
}

fn body() -> impl Strategy<Value = Body> {
    prop_oneof![
        3 => Just(Body::None),
        2 => (0..400_usize).prop_map(Body::Length),
        2 => (prop::collection::vec(1..90_usize, 0..5), any::<bool>())
            .prop_map(|(chunks, has_trailers)| Body::Chunked(chunks, has_trailers)),
    ]
}

/// A request as text: what precedes it, its head, and its body.
fn parts() -> impl Strategy<Value = (&'static str, String, String)> {
    let method = prop::sample::select(vec!["GET", "HEAD", "POST", "PUT"]);
    let before = prop_oneof![5 => Just(""), 1 => Just("\r\n"), 1 => Just("\r\n\r\n")];
    let padding = prop_oneof![Just(0), 0..300_usize];
    (before, method, padding, body()).prop_map(|(before, method, padding, body)| {
        let mut head = format!("{method} / HTTP/1.1\r\nhost: a\r\n");
        if padding > 0 {
            head.extend(["x: ", &"b".repeat(padding), "\r\n"]);
        }
        let text = match body {
            Body::None => String::new(),
            Body::Length(length) => {
                head.extend(["content-length: ", &length.to_string(), "\r\n"]);
                // Looks like requests.
                "GET / HTTP/1.1\r\n\r\n"
                    .chars()
                    .cycle()
                    .take(length)
                    .collect()
            }
            Body::Chunked(lengths, has_trailers) => {
                head += "transfer-encoding: chunked\r\n";
                let chunk = |length: &usize| format!("{length:x}\r\n{}\r\n", "\n".repeat(*length));
                let chunks: String = lengths.iter().map(chunk).collect();
                chunks
                    + "0\r\n"
                    + if has_trailers {
                        "sum: 1\r\n\r\n"
                    } else {
                        "\r\n"
                    }
            }
        };
        (before, head + "\r\n", text)
    })
}

/// So many requests, one after the other.
pub fn pipelined(count: Range<usize>) -> impl Strategy<Value = Vec<Request>> {
    prop::collection::vec(parts(), count).prop_map(|all| {
        let mut at = 0;
        all.iter()
            .map(|(before, head, body)| {
                let begin = at + before.len();
                let head_end = begin + head.len();
                at = head_end + body.len();
                Request {
                    text: [*before, head, body].concat(),
                    begin,
                    head_end,
                    end: at,
                }
            })
            .collect()
    })
}
