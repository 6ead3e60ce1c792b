//! The server's name in a TLS client hello (RFC 8446, 4.1.2; RFC 6066, 3).

use super::detection::is_client_hello;

/// What a client hello says of the server that it is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ServerName {
    /// Only more bytes can tell.
    Incomplete,
    /// It has none, or none that makes sense.
    Absent,
    /// In lower case.
    Name(String),
}

/// What `bytes`, the first that a TLS client sent, say of the server.
pub fn server_name(bytes: &[u8]) -> ServerName {
    if is_client_hello(bytes) == Some(false) {
        return ServerName::Absent;
    }
    let (message, is_cut) = handshake(bytes);
    match find(&message) {
        Ok(Some(name)) => ServerName::Name(name),
        Ok(None) | Err(Fault::Malformed) => ServerName::Absent,
        Err(Fault::TooShort) if is_cut => ServerName::Absent,
        Err(Fault::TooShort) => ServerName::Incomplete,
    }
}

enum Fault {
    TooShort,
    Malformed,
}

/// What the handshake records at the beginning carry together. True if something else follows them,
/// so that no more can come.
fn handshake(mut bytes: &[u8]) -> (Vec<u8>, bool) {
    const HANDSHAKE: u8 = 22;
    let mut message = Vec::with_capacity(bytes.len());
    while let [kind, _, _, high, low, rest @ ..] = bytes {
        if *kind != HANDSHAKE {
            return (message, true);
        }
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let (here, later) = rest.split_at(length.min(rest.len()));
        message.extend_from_slice(here);
        bytes = later;
    }
    (message, false)
}

fn find(message: &[u8]) -> Result<Option<String>, Fault> {
    const SERVER_NAME: u16 = 0;
    const HOST_NAME: u8 = 0;
    let mut message = Reader(message);
    // Its type, which was looked at.
    message.take(1)?;
    let length = message.number(3)?;
    let mut hello = Reader(&message.0[..length.min(message.0.len())]);
    let is_whole = hello.0.len() == length;
    let mut name = || {
        // Version and random.
        hello.take(2 + 32)?;
        // Session, cipher suites, compression methods.
        for size in [1, 2, 1] {
            let length = hello.number(size)?;
            hello.take(length)?;
        }
        if hello.0.is_empty() && is_whole {
            return Ok(None);
        }
        hello.number(2)?;
        while !(is_whole && hello.0.is_empty()) {
            let kind = hello.number(2)?;
            let length = hello.number(2)?;
            let mut extension = Reader(hello.take(length)?);
            if kind == usize::from(SERVER_NAME) {
                // A list of one: there is one kind of name, and no two of a kind are allowed.
                extension.number(2)?;
                if extension.number(1)? != usize::from(HOST_NAME) {
                    return Err(Fault::Malformed);
                }
                let length = extension.number(2)?;
                return host_name(extension.take(length)?)
                    .map(Some)
                    .ok_or(Fault::Malformed);
            }
        }
        Ok(None)
    };
    match name() {
        // What is there contradicts itself.
        Err(Fault::TooShort) if is_whole => Err(Fault::Malformed),
        found => found,
    }
}

/// A name of DNS; addresses are not allowed here, and nothing else is of use.
fn host_name(bytes: &[u8]) -> Option<String> {
    const LONGEST: usize = 253;
    let is_good = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.".contains(byte);
    let is_name = (1..=LONGEST).contains(&bytes.len()) && bytes.iter().all(is_good);
    let name = std::str::from_utf8(bytes).ok().filter(|_| is_name)?;
    Some(name.trim_end_matches('.').to_ascii_lowercase())
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, length: usize) -> Result<&'a [u8], Fault> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Fault::TooShort)?;
        self.0 = rest;
        Ok(taken)
    }

    /// In network byte order.
    fn number(&mut self, size: usize) -> Result<usize, Fault> {
        let bytes = self.take(size)?.iter();
        Ok(bytes.fold(0, |number, byte| number << 8 | usize::from(*byte)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn with_length(size: usize, bytes: &[u8]) -> Vec<u8> {
        let length = (bytes.len() as u32).to_be_bytes();
        [&length[4 - size..], bytes].concat()
    }

    fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
        [&kind.to_be_bytes(), &*with_length(2, content)].concat()
    }

    fn named(name: &[u8]) -> Vec<u8> {
        let entry = [&[0][..], &with_length(2, name)].concat();
        extension(0, &with_length(2, &entry))
    }

    /// A client hello in records of at most `most` bytes.
    fn hello(extensions: &[u8], most: usize) -> Vec<u8> {
        let body = [
            &[3, 3][..],
            &[7; 32],
            &with_length(1, &[9; 32]),
            &with_length(2, &[0x13, 1, 0x13, 2]),
            &with_length(1, &[0]),
            &with_length(2, extensions),
        ]
        .concat();
        let message = [&[1][..], &with_length(3, &body)].concat();
        let records = message.chunks(most);
        records
            .flat_map(|part| [&[22, 3, 1][..], &with_length(2, part)].concat())
            .collect()
    }

    #[test]
    fn names_are_found() {
        let other = extension(43, &[2, 3, 4]);
        let with_name = [other.clone(), named(b"Reviews.Demo.")].concat();
        let found = ServerName::Name("reviews.demo".to_owned());
        assert_eq!(server_name(&hello(&with_name, 1 << 14)), found);
        assert_eq!(server_name(&hello(&with_name, 40)), found);
        assert_eq!(server_name(&hello(&other, 1 << 14)), ServerName::Absent);
        assert_eq!(server_name(&hello(&[], 1 << 14)), ServerName::Absent);
        for bad in ["", "a b", "a/b", &"x".repeat(254)] {
            let bad = hello(&named(bad.as_bytes()), 1 << 14);
            assert_eq!(server_name(&bad), ServerName::Absent);
        }
        // The extension says that it is longer than what there is.
        let cut = [&0_u16.to_be_bytes()[..], &[0, 200, 0]].concat();
        assert_eq!(server_name(&hello(&cut, 1 << 14)), ServerName::Absent);
    }

    #[test]
    fn other_records_end_it() {
        let whole = hello(&named(b"a.example"), 1 << 14);
        let cut = [&[22, 3, 1][..], &with_length(2, &whole[5..60])].concat();
        let and_alert = [&cut[..], &[21, 3, 1, 0, 2, 1, 0]].concat();
        assert_eq!(server_name(&cut), ServerName::Incomplete);
        assert_eq!(server_name(&and_alert), ServerName::Absent);
    }

    proptest! {
        /// However small segments and records are, they come to the same.
        #[test]
        fn any_beginning_is_incomplete_or_tells(
            before in 0..600_usize,
            most in 6..700_usize,
            name in "[a-z]{1,9}(\\.[a-z]{1,9}){0,3}",
        ) {
            let extensions = [extension(21, &vec![0; before]), named(name.as_bytes())].concat();
            let bytes = hello(&extensions, most);
            for length in 0..bytes.len() {
                match server_name(&bytes[..length]) {
                    ServerName::Incomplete => {}
                    told => {
                        prop_assert_eq!(told, ServerName::Name(name.clone()));
                        break;
                    }
                }
            }
            prop_assert_eq!(server_name(&bytes), ServerName::Name(name));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), at in 0..200_usize) {
            let mut hello = hello(&named(b"a.example"), 1 << 14);
            for (place, byte) in hello.iter_mut().skip(at).zip(bytes) {
                *place = byte;
            }
            server_name(&hello);
        }
    }
}
