//! Where HTTP/1 requests begin and end, strictly: what two implementations might read in two ways is
//! refused, so that nobody can hide a request in another one (request smuggling).
//!
//! Runs over the bytes before the HTTP library sees them; no I/O.

use super::reason::Malformed;
use crate::policy::detection::is_token;

/// Largest head of a request and most headers in it; the same for trailers.
pub const LARGEST_HEAD: usize = 64 << 10;
pub const MOST_HEADERS: usize = 128;
/// Empty lines before a request, which careless clients send after a body (RFC 9112, 2.2).
const MOST_EMPTY_LINES: usize = 4;
/// Longest line with the size of a chunk, extensions included.
const LONGEST_CHUNK_LINE: usize = 4 << 10;

/// The requests of one connection.
#[derive(Debug, Default)]
pub struct Framing {
    state: State,
    /// Of the bytes that are not passed yet: how many were looked at.
    seen: usize,
    failed: Option<Malformed>,
    /// Heads that have passed.
    heads: u64,
}

#[derive(Debug, Default)]
enum State {
    #[default]
    Head,
    /// So many bytes of a body.
    Body(u64),
    ChunkLine {
        line: Vec<u8>,
    },
    ChunkData(u64),
    /// CR LF after a chunk: so many bytes of it have come.
    ChunkEnd(u8),
    Trailers {
        line: Vec<u8>,
        length: usize,
    },
    /// Another protocol, if the server agrees.
    Switched,
}

/// What follows a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Body {
    Length(u64),
    Chunked,
}

impl Framing {
    /// Looks at the bytes that were not passed yet and says how many of them can be; the rest is to be
    /// given again, with more or as it is. An error comes alone, and then it is the only thing that
    /// comes.
    pub fn pass(&mut self, bytes: &[u8]) -> (usize, Result<(), Malformed>) {
        let mut at = 0;
        while self.failed.is_none() && at < bytes.len() {
            match self.step(&bytes[at..]) {
                Ok(0) => break,
                Ok(passed) => at += passed,
                Err(malformed) => self.failed = Some(malformed),
            }
        }
        let verdict = self.failed.filter(|_| at == 0);
        (at, verdict.map_or(Ok(()), Err))
    }

    /// How many requests have begun.
    pub const fn heads(&self) -> u64 {
        self.heads
    }

    /// Whether a request has begun that is not over.
    pub fn is_inside_body(&self) -> bool {
        !matches!(self.state, State::Head)
    }

    /// Whether the end of the connection now is one in the middle of a body.
    pub fn expects_more(&self) -> bool {
        !matches!(self.state, State::Head | State::Switched)
    }

    fn step(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        match &mut self.state {
            State::Head => self.head(bytes),
            State::Body(left) | State::ChunkData(left) => {
                let passed = usize::try_from(*left).map_or(bytes.len(), |it| it.min(bytes.len()));
                *left -= passed as u64;
                if *left == 0 {
                    self.state = match self.state {
                        State::ChunkData(_) => State::ChunkEnd(0),
                        _ => State::Head,
                    };
                }
                Ok(passed)
            }
            State::ChunkEnd(come) => {
                if bytes[0] != b"\r\n"[usize::from(*come)] {
                    return Err(Malformed::ChunkSize);
                }
                *come += 1;
                if *come == 2 {
                    self.state = State::ChunkLine { line: Vec::new() };
                }
                Ok(1)
            }
            State::ChunkLine { line } => {
                let (passed, is_whole) = take_line(line, bytes);
                if line.len() > LONGEST_CHUNK_LINE {
                    return Err(Malformed::ChunkSize);
                }
                if is_whole {
                    self.state = match chunk_size(line)? {
                        0 => State::Trailers {
                            line: Vec::new(),
                            length: 0,
                        },
                        size => State::ChunkData(size),
                    };
                }
                Ok(passed)
            }
            State::Trailers { line, length } => {
                let (passed, is_whole) = take_line(line, bytes);
                *length += passed;
                if *length > LARGEST_HEAD {
                    return Err(Malformed::HeadersTooLarge);
                }
                if is_whole {
                    let trailer = without_line_end(line)?;
                    if trailer.is_empty() {
                        self.state = State::Head;
                    } else {
                        let (name, _) = header(trailer)?;
                        if [&b"content-length"[..], b"transfer-encoding", b"host"]
                            .iter()
                            .any(|known| name.eq_ignore_ascii_case(known))
                        {
                            return Err(Malformed::Header);
                        }
                        line.clear();
                    }
                }
                Ok(passed)
            }
            State::Switched => Ok(bytes.len()),
        }
    }

    /// Passes a head only as a whole.
    fn head(&mut self, bytes: &[u8]) -> Result<usize, Malformed> {
        let empty = leading_empty_lines(bytes)?;
        loop {
            let Some(end) = find(&bytes[self.seen..], b'\n') else {
                self.seen = bytes.len();
                if bytes.len() > LARGEST_HEAD {
                    return Err(Malformed::HeadersTooLarge);
                }
                return Ok(0);
            };
            let line_end = self.seen + end;
            self.seen = line_end + 1;
            if line_end == 0 || bytes[line_end - 1] != b'\r' {
                return Err(Malformed::LineEnd);
            }
            let is_last = line_end > empty && bytes[..line_end].ends_with(b"\r\n\r");
            if line_end > LARGEST_HEAD {
                return Err(Malformed::HeadersTooLarge);
            }
            if is_last {
                break;
            }
        }
        let passed = std::mem::take(&mut self.seen);
        self.state = head(&bytes[empty..passed - 4])?;
        self.heads += 1;
        Ok(passed)
    }
}

/// How many bytes of empty lines come before the request.
fn leading_empty_lines(bytes: &[u8]) -> Result<usize, Malformed> {
    let lines = bytes.chunks(2).take_while(|pair| *pair == b"\r\n").count();
    if lines > MOST_EMPTY_LINES {
        return Err(Malformed::RequestLine);
    }
    Ok(lines * 2)
}

/// What follows a head, which is given without its last line end and the empty line.
fn head(bytes: &[u8]) -> Result<State, Malformed> {
    let mut lines = Lines(Some(bytes));
    let line = lines.next().ok_or(Malformed::RequestLine)??;
    let is_http_10 = request_line(line)?;
    let is_connect = line.starts_with(b"CONNECT ");
    let (mut length, mut is_chunked) = (None, false);
    let (mut hosts, mut upgrades) = (0, false);
    for (number, line) in lines.enumerate() {
        if number >= MOST_HEADERS {
            return Err(Malformed::HeadersTooLarge);
        }
        let (name, value) = header(line?)?;
        if name.eq_ignore_ascii_case(b"content-length") {
            if length.is_some() {
                return Err(Malformed::ContentLength);
            }
            length = Some(content_length(value).ok_or(Malformed::ContentLength)?);
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if is_chunked || is_http_10 || !value.eq_ignore_ascii_case(b"chunked") {
                return Err(Malformed::TransferEncoding);
            }
            is_chunked = true;
        } else if name.eq_ignore_ascii_case(b"host") {
            hosts += 1;
        } else if name.eq_ignore_ascii_case(b"upgrade") {
            // To HTTP/2 it is never switched.
            let mut names = value.split(|byte| *byte == b',');
            upgrades |= !names.any(|name| name.trim_ascii().eq_ignore_ascii_case(b"h2c"));
        }
    }
    if hosts > 1 || (hosts == 0 && !is_http_10) {
        return Err(Malformed::Host);
    }
    let body = match (length, is_chunked) {
        (Some(_), true) => return Err(Malformed::LengthAndChunked),
        (length, false) => Body::Length(length.unwrap_or(0)),
        (None, true) => Body::Chunked,
    };
    Ok(match body {
        Body::Length(0) if upgrades || is_connect => State::Switched,
        Body::Length(0) => State::Head,
        Body::Length(length) => State::Body(length),
        Body::Chunked => State::ChunkLine { line: Vec::new() },
    })
}

/// The lines of a head.
struct Lines<'a>(Option<&'a [u8]>);

impl<'a> Iterator for Lines<'a> {
    type Item = Result<&'a [u8], Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        let rest = self.0?;
        let line = match find(rest, b'\r') {
            Some(end) if rest.get(end + 1) == Some(&b'\n') => {
                self.0 = Some(&rest[end + 2..]);
                &rest[..end]
            }
            // A CR alone.
            Some(_) => return Some(Err(Malformed::LineEnd)),
            None => {
                self.0 = None;
                rest
            }
        };
        Some(Ok(line))
    }
}

/// Whether it is one of HTTP/1.0.
fn request_line(line: &[u8]) -> Result<bool, Malformed> {
    let mut parts = line.split(|byte| *byte == b' ');
    let mut part = || parts.next().ok_or(Malformed::RequestLine);
    let (method, target, version) = (part()?, part()?, part()?);
    let is_good = parts.next().is_none()
        && !method.is_empty()
        && method.iter().all(|byte| is_token(*byte))
        && !target.is_empty()
        // A fragment is never sent (RFC 9112, 3.2); what comes after it might be read or not.
        && target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    match version {
        b"HTTP/1.1" if is_good => Ok(false),
        b"HTTP/1.0" if is_good => Ok(true),
        _ => Err(Malformed::RequestLine),
    }
}

/// Name and value.
fn header(line: &[u8]) -> Result<(&[u8], &[u8]), Malformed> {
    if matches!(line.first(), Some(b' ' | b'\t')) {
        return Err(Malformed::FoldedHeader);
    }
    let colon = find(line, b':').ok_or(Malformed::Header)?;
    let (name, value) = (&line[..colon], &line[colon + 1..]);
    let is_text = |byte: &u8| *byte == b'\t' || (*byte >= b' ' && *byte != 0x7f);
    if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) || !value.iter().all(is_text) {
        return Err(Malformed::Header);
    }
    Ok((name, value.trim_ascii()))
}

/// Digits only: no sign, no list.
fn content_length(value: &[u8]) -> Option<u64> {
    let is_number = !value.is_empty() && value.iter().all(u8::is_ascii_digit);
    is_number.then(|| str::from_utf8(value).ok()?.parse().ok())?
}

/// Digits, and extensions that nobody reads.
fn chunk_size(line: &[u8]) -> Result<u64, Malformed> {
    let line = without_line_end(line)?;
    let digits = line
        .iter()
        .take_while(|byte| byte.is_ascii_hexdigit())
        .count();
    let (digits, rest) = line.split_at(digits);
    // Whitespace only before an extension (RFC 9112, 7.1.1).
    let has_good_rest = rest.is_empty()
        || (rest.trim_ascii_start().first() == Some(&b';')
            && rest
                .iter()
                .all(|byte| *byte == b'\t' || (b' '..0x7f).contains(byte)));
    if !(1..=15).contains(&digits.len()) || !has_good_rest {
        return Err(Malformed::ChunkSize);
    }
    let digits = str::from_utf8(digits).map_err(|_| Malformed::ChunkSize)?;
    u64::from_str_radix(digits, 16).map_err(|_| Malformed::ChunkSize)
}

/// Adds the rest of a line to `line`: how many bytes that is, and whether it is whole.
fn take_line(line: &mut Vec<u8>, bytes: &[u8]) -> (usize, bool) {
    let end = find(bytes, b'\n');
    let length = end.map_or(bytes.len(), |end| end + 1);
    line.extend(&bytes[..length]);
    (length, end.is_some())
}

fn without_line_end(line: &[u8]) -> Result<&[u8], Malformed> {
    let line = line.strip_suffix(b"\r\n").ok_or(Malformed::LineEnd)?;
    if line.contains(&b'\r') {
        return Err(Malformed::LineEnd);
    }
    Ok(line)
}

fn find(bytes: &[u8], wanted: u8) -> Option<usize> {
    bytes.iter().position(|byte| *byte == wanted)
}

#[cfg(test)]
mod tests;
