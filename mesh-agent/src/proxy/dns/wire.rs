//! Where things are in a DNS message (RFC 1035, 4): what a decoder does not tell, and one must know
//! to pass a message on byte by byte.

use std::ops::Range;

/// Bytes of the header.
pub const HEADER: usize = 12;
/// Largest message over UDP without EDNS (RFC 1035, 4.2.1).
pub const PLAIN_LIMIT: usize = 512;

/// Bits of the third byte.
pub const RESPONSE: u8 = 0x80;
pub const OPCODE: u8 = 0x78;
pub const TRUNCATED: u8 = 0x02;
pub const RECURSION_DESIRED: u8 = 0x01;
/// Bits of the fourth byte.
pub const RECURSION_AVAILABLE: u8 = 0x80;
pub const AUTHENTIC_DATA: u8 = 0x20;
pub const CHECKING_DISABLED: u8 = 0x10;
pub const RESPONSE_CODE: u8 = 0x0f;

pub const NO_ERROR: u8 = 0;
pub const SERVER_FAILURE: u8 = 2;
pub const NAME_ERROR: u8 = 3;

const TYPE_SOA: u16 = 6;
const TYPE_OPT: u16 = 41;
const TYPE_SIG: u16 = 24;
const TYPE_TSIG: u16 = 250;

/// A message with one question, taken apart.
#[derive(Debug, Default)]
pub struct Layout {
    /// Where the question ends.
    pub question_end: usize,
    /// Where the TTLs are, but for that of the OPT record, which is none.
    pub ttls: Vec<usize>,
    /// The least of them.
    pub least_ttl: Option<u32>,
    /// How long a negative answer may be kept (RFC 2308, 5).
    pub negative_ttl: Option<u32>,
    /// The OPT record.
    pub opt: Option<Range<usize>>,
    /// Whether it is signed for one recipient, or goes on after its end.
    pub is_sealed: bool,
}

/// A 16-bit number of the header or a record.
pub fn number(message: &[u8], at: usize) -> Option<u16> {
    let bytes = message.get(at..at + 2)?;
    Some(u16::from_be_bytes(bytes.try_into().ok()?))
}

fn long_number(message: &[u8], at: usize) -> Option<u32> {
    let bytes = message.get(at..at + 4)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}

/// Where the name that begins at `at` ends.
fn end_of_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = usize::from(*message.get(at)?);
        match length >> 6 {
            0 if length == 0 => return Some(at + 1),
            0 => at += 1 + length,
            // A pointer is the end of a name.
            3 => return (at + 2 <= message.len()).then_some(at + 2),
            _ => return None,
        }
    }
}

/// Where the only question ends. Its name is no pointer: there is nothing before it to point to.
pub fn end_of_question(message: &[u8]) -> Option<usize> {
    if number(message, 4)? != 1 {
        return None;
    }
    let mut at = HEADER;
    while *message.get(at)? != 0 {
        let length = usize::from(message[at]);
        if length >= 64 || at - HEADER > 255 {
            return None;
        }
        at += 1 + length;
    }
    let end = at + 5;
    (end <= message.len() && at - HEADER < 255).then_some(end)
}

impl Layout {
    /// Takes a message apart; `None` if it is malformed or has not exactly one question.
    pub fn of(message: &[u8]) -> Option<Self> {
        let mut layout = Self {
            question_end: end_of_question(message)?,
            ..Self::default()
        };
        let mut at = layout.question_end;
        for section in [6, 8, 10] {
            for _ in 0..number(message, section)? {
                let start = at;
                let fixed = end_of_name(message, start)?;
                let kind = number(message, fixed)?;
                let ttl = long_number(message, fixed + 4)?;
                let length = usize::from(number(message, fixed + 8)?);
                at = fixed + 10 + length;
                if at > message.len() {
                    return None;
                }
                match kind {
                    TYPE_OPT if layout.opt.is_some() => return None,
                    TYPE_OPT => {
                        layout.opt = Some(start..at);
                        continue;
                    }
                    TYPE_SIG | TYPE_TSIG => layout.is_sealed = true,
                    TYPE_SOA if section == 8 && length >= 4 => {
                        let minimum = long_number(message, at - 4)?;
                        layout.negative_ttl = Some(seconds(ttl).min(seconds(minimum)));
                    }
                    _ => {}
                }
                layout.ttls.push(fixed + 4);
                let least = layout.least_ttl.unwrap_or(u32::MAX);
                layout.least_ttl = Some(least.min(seconds(ttl)));
            }
        }
        layout.is_sealed |= at != message.len();
        Some(layout)
    }

    /// What the OPT record says: the largest answer that its sender takes, its version and flags, and
    /// whether it has options.
    pub fn edns(&self, message: &[u8]) -> Option<Edns> {
        let opt = self.opt.clone()?;
        let fixed = end_of_name(message, opt.start)?;
        Some(Edns {
            limit: usize::from(number(message, fixed + 2)?),
            version_and_flags: long_number(message, fixed + 4)?,
            has_options: opt.end > fixed + 10,
        })
    }
}

/// What an OPT record says (RFC 6891, 6.1).
#[derive(Clone, Copy, Debug)]
pub struct Edns {
    pub limit: usize,
    pub version_and_flags: u32,
    pub has_options: bool,
}

/// A TTL: the topmost bit means 0 (RFC 2181, 8).
fn seconds(ttl: u32) -> u32 {
    if ttl > i32::MAX as u32 { 0 } else { ttl }
}
