//! What a leg remembers of the messages whose stamps are wanted: of the one under way, and of the one before as long as
//! nobody has asked for it.

use std::time::Duration;

use super::{First, Heard, away};
use crate::latency::{
    clock::Nanos,
    control_messages::TransmitStamp,
    socket::{Asked, TcpInfo},
    stages::Arrival,
    transmit_log::{Counts, TransmitLog, Write},
};

/// Which of the messages that were measured on a connection: its next one may have begun before the end of an answer that
/// was read ahead is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Message(u32);

#[derive(Debug, Default)]
pub(super) struct Log {
    pub(super) transmit: TransmitLog,
    message: Message,
    /// Its end has not been asked for.
    is_open: bool,
    /// Where it began.
    from: u64,
    /// What came in since then: the first of it, and the last.
    pub(super) first: Option<Arrival>,
    pub(super) last: Option<Arrival>,
    pub(super) info: TcpInfo,
    /// Segments that were sent again, between the messages that were measured and for this one.
    resent: u32,
    /// Stamps that were asked for and have not come.
    pub(super) is_waiting: bool,
    before: Option<Before>,
}

/// A message that was still open when the next began.
#[derive(Debug)]
struct Before {
    message: Message,
    heard: Heard,
    last: Option<Arrival>,
}

impl Log {
    /// A message begins at the offset `from`. `has_end`: the end of the one before was about to be written.
    pub(super) fn begin(&mut self, from: u64, has_end: bool) -> Message {
        self.before = self.is_open.then(|| Before {
            message: self.message,
            heard: self.hear(has_end),
            last: self.last,
        });
        self.message = Message(self.message.0.wrapping_add(1));
        self.is_open = true;
        self.first = None;
        self.last = None;
        self.begin_write(from);
        self.message
    }

    /// What is written from the offset `from` on is another message, but what comes in is of the same.
    pub(super) fn begin_write(&mut self, from: u64) {
        self.from = from;
        self.transmit.forget(from);
    }

    /// Whether `message` is the one under way.
    pub(super) fn is_current(&self, message: Message) -> bool {
        self.message == message
    }

    fn hear(&mut self, has_end: bool) -> Heard {
        Heard {
            write: self.last_write(),
            first: self.first,
            info: self.info,
            resent: self.take_resent(),
            has_end,
        }
    }

    /// What was heard of `message`. `has_end`: the end of the one under way was about to be written.
    pub(super) fn heard(&mut self, message: Message, has_end: bool) -> Heard {
        if self.is_current(message) {
            return self.hear(has_end);
        }
        let before = self.before.as_ref().filter(|it| it.message == message);
        before.map_or_else(Heard::default, |before| before.heard)
    }

    /// From the last byte of `message` at the device to the first byte of what came back.
    pub(super) fn away(&self, message: Message) -> Option<Duration> {
        if self.is_current(message) {
            return away(self.last_write(), self.first);
        }
        let before = self.before.as_ref().filter(|it| it.message == message)?;
        away(before.heard.write, before.heard.first)
    }

    /// What came back for `message` has ended: the last of it, and what became of stamps since this was asked last.
    pub(super) fn end(&mut self, message: Message) -> (Option<Arrival>, Counts) {
        let last = if self.is_current(message) {
            self.is_open = false;
            self.last
        } else {
            let before = self.before.take_if(|it| it.message == message);
            before.and_then(|before| before.last)
        };
        (last, self.transmit.take_counts())
    }

    /// The last write that stamps were wanted of, since the message or its end began.
    pub(super) fn last_write(&self) -> Option<Write> {
        self.transmit.last_since(self.from)
    }

    /// Segments that were sent again since this was asked.
    pub(super) const fn take_resent(&mut self) -> u32 {
        std::mem::replace(&mut self.resent, 0)
    }

    /// Something came in: the first since the message began, or not.
    pub(super) fn arrived(&mut self, arrival: Arrival) -> Option<First> {
        self.last = Some(arrival);
        if self.first.is_some() {
            return None;
        }
        self.first = Some(arrival);
        Some(First {
            away: away(self.last_write(), self.first),
        })
    }

    /// Takes stamps with `take`, which says how many there were; and says so.
    pub(super) fn stamped(
        &mut self,
        take: impl FnOnce(&mut dyn FnMut(TransmitStamp)) -> usize,
    ) -> usize {
        let taken = take(&mut |stamp| self.transmit.stamped(stamp));
        if taken > 0 {
            self.is_waiting = self.last_write().is_some_and(|write| write.is_pending());
        }
        taken
    }

    /// What the kernel says of the connection.
    pub(super) fn informed(&mut self, info: TcpInfo) {
        self.resent += info.retransmits.saturating_sub(self.info.retransmits);
        if info.needless > self.info.needless {
            // Not lost: acknowledgements were held back for longer than TCP waits for them.
            self.transmit.forget_again();
        }
        self.info = info;
    }

    /// A write was taken whose last byte is before `end`.
    pub(super) fn wrote(&mut self, end: u64, written: Nanos, asked: Asked) {
        self.transmit.wrote(end, written, asked);
        self.is_waiting |= asked != Asked::NOTHING;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::latency::stages::Stamp;

    fn arrival(at: u64) -> Arrival {
        Arrival {
            stamp: Stamp {
                at: Nanos(at),
                ..Stamp::default()
            },
            read: Nanos(at),
        }
    }

    #[test]
    fn what_was_read_ahead_is_still_told_when_the_next_message_is_under_way() {
        let mut log = Log::default();
        let one = log.begin(0, false);
        log.wrote(10, Nanos(0), Asked::SENT);
        log.arrived(arrival(1));
        log.arrived(arrival(2));
        let other = log.begin(10, true);
        log.wrote(30, Nanos(0), Asked::SENT);
        log.arrived(arrival(7));

        let heard = log.heard(one, false);
        assert_eq!(heard.write.map(|write| write.end), Some(10));
        assert_eq!(heard.first.map(|first| first.read), Some(Nanos(1)));
        assert!(heard.has_end);
        let (last, _) = log.end(one);
        assert_eq!(last.map(|last| last.read), Some(Nanos(2)));
        assert!(log.is_current(other));

        let heard = log.heard(other, false);
        assert_eq!(heard.write.map(|write| write.end), Some(30));
        assert_eq!(heard.first.map(|first| first.read), Some(Nanos(7)));
        let (last, _) = log.end(other);
        assert_eq!(last.map(|last| last.read), Some(Nanos(7)));
        assert_eq!(log.end(one).0, None, "it was told already");
    }

    #[test]
    fn what_is_two_messages_old_is_not_taken_for_another() {
        let mut log = Log::default();
        let one = log.begin(0, false);
        log.arrived(arrival(1));
        log.begin(0, false);
        log.begin(0, false);
        log.arrived(arrival(3));
        assert_eq!(log.heard(one, true).first, None);
        assert_eq!(log.away(one), None);
        assert_eq!(log.end(one).0, None);
    }
}
