//! What is read of an HTTP/2 connection, on its way to the HTTP/2 library: adjacent DATA frames of a stream
//! are joined to one.
//!
//! Servers cut answers into frames of 8 or 16 KiB, and the library takes each of them apart, allocates room
//! for it, accounts for it in two windows and wakes its reader. An answer of 64 KiB that is there as a whole
//! is one such frame here, or two.

use std::io;

use tokio::io::ReadBuf;

use crate::proxy::scratch;

/// Longest frame that is made: the library's limit has to be at least that (`max_frame_size`).
pub const LONGEST: u32 = scratch::SIZE as u32;
/// Shorter ones are left to the library, which limits how many there are.
const SHORTEST: usize = 1 << 10;
/// RFC 9113, 4.1.
const HEAD: usize = 9;

/// Bytes that were read and not asked for yet.
#[derive(Debug)]
pub struct JoinedFrames {
    bytes: Vec<u8>,
    /// Where the first of them is.
    at: usize,
    /// How many can be given before the next head is looked at.
    pass: usize,
    /// How many frames follow that the frame which is given includes: what is left of them is their
    /// payload.
    joined: usize,
}

impl JoinedFrames {
    /// For a connection that begins with `preface` bytes that are no frame.
    pub const fn after(preface: usize) -> Self {
        Self {
            bytes: Vec::new(),
            at: 0,
            pass: preface,
            joined: 0,
        }
    }

    /// Reads more with `read`, which says how much it read; to be called when there is nothing to give.
    pub fn fill(
        &mut self,
        read: impl FnOnce(&mut Vec<u8>) -> io::Result<usize>,
    ) -> io::Result<usize> {
        self.bytes.drain(..self.at);
        self.at = 0;
        if self.bytes.capacity() == 0 {
            self.bytes = scratch::buffer();
        }
        let count = read(&mut self.bytes);
        if matches!(count, Ok(0)) {
            // It ends within a head, which is for the library to find out.
            self.pass = self.bytes.len();
        }
        self.recycle();
        count
    }

    /// Gives as much as there is and `buffer` has room for; whether that is anything.
    pub fn give(&mut self, buffer: &mut ReadBuf<'_>) -> bool {
        let before = buffer.filled().len();
        while buffer.remaining() > 0 && (self.pass > 0 || self.begin_frame()) {
            let there = &self.bytes[self.at..];
            let count = there.len().min(self.pass).min(buffer.remaining());
            if count == 0 {
                break;
            }
            buffer.put_slice(&there[..count]);
            self.at += count;
            self.pass -= count;
        }
        self.recycle();
        buffer.filled().len() > before
    }

    /// A connection that nothing comes from owns no buffer.
    fn recycle(&mut self) {
        if self.at == self.bytes.len() {
            self.at = 0;
            scratch::give_back(std::mem::take(&mut self.bytes));
        }
    }

    /// Looks at the next head. `false` if it is not there yet.
    fn begin_frame(&mut self) -> bool {
        while self.joined > 0 {
            let Some(head) = Head::of(&self.bytes[self.at..]) else {
                return false;
            };
            self.joined -= 1;
            self.at += HEAD;
            self.pass = head.length;
            if self.pass > 0 {
                return true;
            }
        }
        let left = &mut self.bytes[self.at..];
        let Some(first) = Head::of(left) else {
            return false;
        };
        let mut whole = first;
        let mut end = HEAD + first.length;
        while whole.goes_on()
            && end <= left.len()
            && let Some(next) = Head::of(&left[end..])
            && next.continues(first)
            && end + HEAD + next.length <= left.len()
            && whole.length + next.length <= LONGEST as usize
        {
            whole.length += next.length;
            whole.flags = next.flags;
            end += HEAD + next.length;
            self.joined += 1;
        }
        if self.joined > 0 {
            whole.write(left);
        }
        self.pass = HEAD + first.length;
        true
    }
}

/// What precedes each frame.
#[derive(Clone, Copy)]
struct Head {
    length: usize,
    kind: u8,
    flags: u8,
    stream: [u8; 4],
}

impl Head {
    const DATA: u8 = 0;
    const END_STREAM: u8 = 1;

    const fn of(bytes: &[u8]) -> Option<Self> {
        let Some((head, _)) = bytes.split_first_chunk::<HEAD>() else {
            return None;
        };
        let [a, b, c, kind, flags, stream @ ..] = *head;
        Some(Self {
            length: u32::from_be_bytes([0, a, b, c]) as usize,
            kind,
            flags,
            stream,
        })
    }

    fn write(self, bytes: &mut [u8]) {
        let [_, length @ ..] = (self.length as u32).to_be_bytes();
        bytes[..3].copy_from_slice(&length);
        bytes[3] = self.kind;
        bytes[4] = self.flags;
    }

    /// Whether more can be joined to it. Padding, and flags that nobody knows, are left alone.
    const fn goes_on(self) -> bool {
        self.kind == Self::DATA && self.flags == 0 && self.length >= SHORTEST
    }

    /// Whether it can be joined to one that goes on.
    fn continues(self, other: Self) -> bool {
        let is_end = self.kind == Self::DATA && self.flags == Self::END_STREAM;
        (self.goes_on() || is_end) && self.stream == other.stream
    }
}

#[cfg(test)]
mod tests;
