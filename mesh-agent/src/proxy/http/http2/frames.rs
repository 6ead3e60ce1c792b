//! Where the frames of a connection begin and end, over the bytes as they are read or written.

/// RFC 9113, 4.1.
const HEAD: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const END_STREAM: u8 = 1;

/// Something that a byte of a connection is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// A message of this stream begins, or its trailers.
    Headers(u32),
    /// The last byte of what one side says on this stream is before this offset in the bytes that were given.
    End(u32, usize),
    /// One side ends this stream in both directions.
    Reset(u32),
}

/// Follows the frames of one direction.
#[derive(Debug)]
pub struct Frames {
    head: [u8; HEAD],
    /// How much of the head has come.
    come: usize,
    /// What is left of the payload.
    left: usize,
    /// The stream that ends with it, and whether it is reset.
    ends: Option<(u32, bool)>,
}

impl Frames {
    /// Of a connection that begins with `preface` bytes that are no frame.
    pub const fn after(preface: usize) -> Self {
        Self {
            head: [0; HEAD],
            come: 0,
            left: preface,
            ends: None,
        }
    }

    /// The next bytes.
    pub fn pass(&mut self, bytes: &[u8], mut seen: impl FnMut(Seen)) {
        let mut at = 0;
        loop {
            let passed = self.left.min(bytes.len() - at);
            self.left -= passed;
            at += passed;
            if self.left > 0 {
                return;
            }
            match self.ends.take() {
                Some((stream, false)) => seen(Seen::End(stream, at)),
                Some((stream, true)) => seen(Seen::Reset(stream)),
                None => {}
            }
            let wanted = HEAD - self.come;
            let there = bytes[at..].len().min(wanted);
            self.head[self.come..self.come + there].copy_from_slice(&bytes[at..at + there]);
            self.come += there;
            at += there;
            if self.come < HEAD {
                return;
            }
            self.come = 0;
            let [a, b, c, kind, flags, stream @ ..] = self.head;
            self.left = u32::from_be_bytes([0, a, b, c]) as usize;
            let stream = u32::from_be_bytes(stream) & (u32::MAX >> 1);
            if kind == HEADERS {
                seen(Seen::Headers(stream));
            }
            let is_end = matches!(kind, DATA | HEADERS) && flags & END_STREAM != 0;
            if is_end || kind == RST_STREAM {
                self.ends = Some((stream, kind == RST_STREAM));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// However the bytes are cut, each head and each end is seen once, at its place.
        #[test]
        fn every_end_is_seen_where_it_is(
            frames in prop::collection::vec((0..4_u8, any::<u8>(), 1..9_u32, 0..40_usize), 0..30),
            cuts in prop::collection::vec(1..50_usize, 1..60),
            preface in 0..30_usize,
        ) {
            let mut bytes = vec![0xff; preface];
            let mut expected = Vec::new();
            for (kind, flags, stream, length) in frames {
                bytes.extend(&(length as u32).to_be_bytes()[1..]);
                bytes.extend([kind, flags]);
                bytes.extend(stream.to_be_bytes());
                if kind == HEADERS {
                    expected.push(Seen::Headers(stream));
                }
                bytes.extend(std::iter::repeat_n(0xee, length));
                if kind <= HEADERS && flags & END_STREAM != 0 {
                    expected.push(Seen::End(stream, bytes.len()));
                }
                if kind == RST_STREAM {
                    expected.push(Seen::Reset(stream));
                }
            }
            let mut scanner = Frames::after(preface);
            let mut seen = Vec::new();
            let mut at = 0;
            let mut cuts = cuts.into_iter().cycle();
            while at < bytes.len() {
                let end = (at + cuts.next().unwrap()).min(bytes.len());
                scanner.pass(&bytes[at..end], |it| seen.push(match it {
                    Seen::End(stream, offset) => Seen::End(stream, at + offset),
                    other => other,
                }));
                at = end;
            }
            // A frame without a payload is over when the next byte comes, or with its head.
            prop_assert_eq!(seen, expected);
        }
    }
}
