use proptest::prelude::*;

use super::*;

/// How many bytes are passed in all when they come in these pieces, and what is wrong then.
fn pass(pieces: &[&[u8]]) -> (usize, Option<Malformed>) {
    let mut framing = Framing::default();
    let (mut held, mut passed) = (Vec::new(), 0);
    for piece in pieces {
        held.extend(*piece);
        loop {
            let (count, verdict) = framing.pass(&held);
            passed += count;
            held.drain(..count);
            match verdict {
                Err(malformed) => return (passed, Some(malformed)),
                Ok(()) if count == 0 => break,
                Ok(()) => {}
            }
        }
    }
    (passed, None)
}

const GOOD: [&str; 8] = [
    "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "\r\n\r\nPOST /a?b HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nab\n",
    "PUT * HTTP/1.1\r\nhOsT:a\r\nTransfer-Encoding: Chunked\r\n\r\n5;a=\"b\"\r\nhello\r\n0\r\n\r\n",
    "PUT / HTTP/1.1\r\nHost: a\r\ntransfer-encoding:chunked\r\n\r\n1\r\na\r\n0\r\nX-Sum: 1\r\n\r\n",
    "M-SEARCH http://a/ HTTP/1.1\r\nHost: a\r\nX-Empty:\r\nX: a\tb \u{e4}\r\n\r\n",
    "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\n\r\n",
    "GET / HTTP/1.1\r\nHost:\r\nContent-Length: 0\r\n\r\n",
];

#[test]
fn what_is_wrong_is_refused_and_named() {
    use Malformed as Is;
    let cases = [
        ("GET / HTTP/1.1\nHost: a\r\n\r\n", Is::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\n\r\n", Is::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\r\n\n", Is::LineEnd),
        ("GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", Is::LineEnd),
        (
            "GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n",
            Is::FoldedHeader,
        ),
        ("GET / HTTP/1.1\r\n Host: a\r\n\r\n", Is::FoldedHeader),
        ("GET / HTTP/1.1\r\nHost : a\r\n\r\n", Is::Header),
        ("GET / HTTP/1.1\r\nHost: a\0\r\n\r\n", Is::Header),
        ("GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n", Is::Header),
        ("GET / HTTP/1.1\r\nHost: a\r\n: empty\r\n\r\n", Is::Header),
        ("GET /\r\n\r\n", Is::RequestLine),
        ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", Is::RequestLine),
        ("GET / HTTP/1.1 \r\nHost: a\r\n\r\n", Is::RequestLine),
        ("GET /\tb HTTP/1.1\r\nHost: a\r\n\r\n", Is::RequestLine),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", Is::RequestLine),
        ("GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", Is::RequestLine),
        ("G(T / HTTP/1.1\r\nHost: a\r\n\r\n", Is::RequestLine),
        (
            "\r\n\r\n\r\n\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
            Is::RequestLine,
        ),
        ("GET / HTTP/1.1\r\n\r\n", Is::Host),
        ("GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n", Is::Host),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
            Is::LengthAndChunked,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 99999999999999999999\r\n\r\n",
            Is::ContentLength,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            Is::TransferEncoding,
        ),
        (
            "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
            Is::TransferEncoding,
        ),
        (
            "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
            Is::TransferEncoding,
        ),
    ];
    for (request, malformed) in cases {
        assert_eq!(
            pass(&[request.as_bytes()]),
            (0, Some(malformed)),
            "{request:?}"
        );
        // A good one before it goes through, and in single bytes it is all the same.
        let both = [GOOD[0], request].concat();
        let bytes: Vec<&[u8]> = both.as_bytes().chunks(1).collect();
        assert_eq!(
            pass(&bytes),
            (GOOD[0].len(), Some(malformed)),
            "{request:?}"
        );
    }
}

#[test]
fn chunks_are_what_they_say() {
    let head = "PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    for body in [
        "\r\n",
        "g\r\n",
        "-1\r\n",
        "0x1\r\n",
        " 1\r\n",
        "1\n",
        "1;a\n",
        "1\r\nab\r\n",
        "1 2\r\n",
        "ffffffffffffffff\r\n",
        "0\r\nHost: b\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\na: b\n\r\n",
    ] {
        let (_, malformed) = pass(&[head.as_bytes(), body.as_bytes()]);
        assert!(malformed.is_some(), "{body:?}");
    }
    let endless = format!("1;{}", "a".repeat(5000));
    assert_eq!(
        pass(&[head.as_bytes(), endless.as_bytes()]).1,
        Some(Malformed::ChunkSize)
    );
}

#[test]
fn heads_have_an_end() {
    let many = "a: b\r\n".repeat(MOST_HEADERS + 1);
    let head = "GET / HTTP/1.1\r\nHost: a\r\n";
    let too_large = Some(Malformed::HeadersTooLarge);
    assert_eq!(
        pass(&[head.as_bytes(), many.as_bytes(), b"\r\n"]).1,
        too_large
    );
    let long = format!("{head}a: {}", "b".repeat(LARGEST_HEAD));
    assert_eq!(pass(&[long.as_bytes()]).1, too_large);
}

proptest! {
    /// Requests one after another pass whole, in whatever pieces they come.
    #[test]
    fn good_requests_pass_whole(
        which in prop::collection::vec(0..GOOD.len(), 1..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let text: String = which.iter().map(|index| GOOD[*index]).collect();
        let bytes = text.as_bytes();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len())).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        prop_assert_eq!(pass(&pieces), (bytes.len(), None));
    }

    /// A verdict does not depend on the pieces.
    #[test]
    fn pieces_make_no_difference(
        which in 0..GOOD.len(),
        at in any::<prop::sample::Index>(),
        instead in prop::collection::vec(prop_oneof![
            Just(b'\r'), Just(b'\n'), Just(b' '), Just(b':'), Just(b'0'), any::<u8>()
        ], 0..3),
    ) {
        let mut bytes = GOOD[which].as_bytes().to_vec();
        let at = at.index(bytes.len());
        bytes.splice(at..=at, instead);
        bytes.extend(GOOD[0].as_bytes());
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let (whole, verdict) = pass(&[&bytes]);
        let (in_pieces, same) = pass(&single);
        prop_assert_eq!(verdict, same);
        // Inside a body the pieces before the fault are with the server already.
        prop_assert!(verdict.is_none() || whole <= in_pieces);
    }
}
