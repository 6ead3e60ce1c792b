//! Which byte of a stream a transmit stamp is of.
//!
//! The kernel names the last byte of each stamped write, counted from when stamps were asked for, modulo 2^32
//! (`SOF_TIMESTAMPING_OPT_ID_TCP`). A segment that is sent again is stamped again, a write may be taken in
//! part, and two writes that go out as one segment have one stamp, that of the last. So the log keeps what was
//! written, takes the first stamp of each kind, and of what is sent again the last, too; and asks for the last write of a
//! message.

use std::{collections::VecDeque, ops::AddAssign, time::Duration};

use super::{
    HardwareNanos, cards,
    clock::Nanos,
    control_messages::{Moment, Stamps, TransmitStamp},
    socket::Asked,
    stages::{Source, Stamp},
};

/// Writes that are remembered: stamps that come later than so many writes are of no use to anybody.
const MOST: usize = 256;
/// Of those that only a card's stamp is missing of: many cards stamp one packet at a time, and leave out others.
const MOST_FOR_CARD: usize = 8;
/// If so many have none, none will.
const ENOUGH_FOR_CARD: u32 = 64;
/// Sooner it is not TCP that sends it again, but a bridge that hands it on to the next device, which stamps it, too.
const AGAIN: Duration = Duration::from_millis(1);
/// After so long the kernel's stamp of a write that left has come, or never will.
const KERNEL_LATE: Duration = Duration::from_secs(1);
/// The same of a card's.
const CARD_LATE: Duration = Duration::from_millis(50);

/// A stamped write, and what is known of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Write {
    /// The offset after its last byte.
    pub end: u64,
    /// Which stamps it is to have.
    pub asked: Asked,
    /// When the kernel had taken it.
    pub written: Nanos,
    /// Handed to the queue of the device.
    pub scheduled: Option<Nanos>,
    /// Handed to the device.
    pub sent: Option<Nanos>,
    /// The same by the card, on its own clock.
    pub sent_by_card: Option<HardwareNanos>,
    /// To the device again, as nobody had acknowledged it: the last time.
    pub sent_again: Option<Nanos>,
    /// Acknowledged by the peer's kernel.
    pub acknowledged: Option<Nanos>,
}

impl Write {
    /// When it was handed to the device, as well as that is known.
    pub fn left(&self) -> Stamp {
        if let Some(stamp) = self.sent_by_card.and_then(cards::to_system) {
            return stamp;
        }
        let (at, source) = match (self.sent, self.scheduled) {
            (Some(at), _) => (at, Source::Software),
            (None, Some(at)) => (at, Source::Scheduled),
            (None, None) => (self.written, Source::Clock),
        };
        Stamp {
            at,
            source,
            uncertainty: 0,
        }
    }

    /// Whether it is not known yet when it left.
    pub fn is_awaited(&self) -> bool {
        self.sent.is_none() && self.asked != Asked::NOTHING
    }

    /// Whether a stamp is still to come that the kernel gives.
    pub fn is_pending(&self) -> bool {
        self.is_awaited() || (self.acknowledged.is_none() && self.asked.is_acknowledged())
    }

    /// Whether it is to have a card's stamp and has none.
    fn lacks_card(&self) -> bool {
        self.asked.is_by_card() && self.sent_by_card.is_none()
    }

    /// How many stamps may still come: the peer may take any time to acknowledge it.
    fn missing(&self, now: Nanos) -> u32 {
        let age = now.after(self.written);
        let is_early = self.asked != Asked::NOTHING && age < KERNEL_LATE;
        let missing = [
            is_early && self.sent.is_none(),
            is_early && self.scheduled.is_none() && self.asked.is_scheduled(),
            self.acknowledged.is_none() && self.asked.is_acknowledged(),
            self.lacks_card() && age < CARD_LATE,
        ];
        missing.into_iter().map(u32::from).sum()
    }
}

/// What became of stamps.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Stamps that were matched to a write.
    pub matched: u64,
    /// Stamps of a segment that was sent again.
    pub again: u64,
    /// Stamps of no write that is remembered.
    pub unmatched: u64,
}

impl AddAssign for Counts {
    fn add_assign(&mut self, other: Self) {
        self.matched += other.matched;
        self.again += other.again;
        self.unmatched += other.unmatched;
    }
}

/// The stamped writes of one connection.
#[derive(Debug, Default)]
pub struct TransmitLog {
    writes: VecDeque<Write>,
    /// All writes up to this offset are done with.
    done: u64,
    counts: Counts,
    /// A card's stamp came.
    has_card_stamps: bool,
    /// Writes that are not remembered any more, of which none came.
    without_card: u32,
}

impl TransmitLog {
    /// A write was taken whose last byte is before `end`.
    pub fn wrote(&mut self, end: u64, written: Nanos, asked: Asked) {
        if self.writes.len() == MOST
            && let Some(first) = self.writes.pop_front()
        {
            self.forgotten(first);
        }
        self.writes.push_back(Write {
            end,
            asked,
            written,
            scheduled: None,
            sent: None,
            sent_by_card: None,
            sent_again: None,
            acknowledged: None,
        });
    }

    /// Nobody will ask for writes up to the offset `end`: those that have all their stamps need not be remembered.
    pub fn forget(&mut self, end: u64) {
        while let Some(first) = self.writes.front() {
            let waits_for_card = first.lacks_card() && self.writes.len() <= MOST_FOR_CARD;
            if first.end > end || first.is_pending() || waits_for_card {
                return;
            }
            let first = *first;
            self.writes.pop_front();
            self.forgotten(first);
        }
    }

    fn forgotten(&mut self, write: Write) {
        self.done = write.end;
        if write.lacks_card() {
            self.without_card = self.without_card.saturating_add(1);
        }
    }

    /// What was sent again was so for nothing.
    pub fn forget_again(&mut self) {
        for write in &mut self.writes {
            write.sent_again = None;
        }
    }

    /// How many stamps may still come.
    pub fn missing(&self, now: Nanos) -> u32 {
        self.writes.iter().map(|write| write.missing(now)).sum()
    }

    /// Whether cards were asked often enough, and none has ever stamped anything: what is written does not go by one.
    pub const fn has_no_card(&self) -> bool {
        !self.has_card_stamps && self.without_card >= ENOUGH_FOR_CARD
    }

    /// A stamp came.
    pub fn stamped(&mut self, stamp: TransmitStamp) {
        self.has_card_stamps |= stamp.stamps.hardware.is_some();
        let mut writes = self.writes.iter_mut().rev();
        let write = writes.find(|write| write.end.wrapping_sub(1) as u32 == stamp.key);
        let Some(write) = write else {
            // Half of the numbers that there are lie before.
            let is_before = (self.done as u32).wrapping_sub(stamp.key).cast_signed() > 0;
            if is_before && self.done > 0 {
                self.counts.again += 1;
            } else {
                self.counts.unmatched += 1;
            }
            return;
        };
        let Stamps { software, hardware } = stamp.stamps;
        let is_new = match stamp.moment {
            Moment::Scheduled => take(&mut write.scheduled, software),
            Moment::Acknowledged => take(&mut write.acknowledged, software),
            Moment::Sent => {
                // One message each, or one with both.
                let by_card = take(&mut write.sent_by_card, hardware);
                let is_new = take(&mut write.sent, software) || by_card;
                let is_again = |at: &Nanos| {
                    let first = write.sent.is_some_and(|sent| at.after(sent) >= AGAIN);
                    !is_new && first
                };
                write.sent_again = software.filter(is_again).or(write.sent_again);
                is_new
            }
        };
        let count = if is_new {
            &mut self.counts.matched
        } else {
            &mut self.counts.again
        };
        *count += 1;
    }

    /// The last stamped write of what was written from the offset `from` on.
    pub fn last_since(&self, from: u64) -> Option<Write> {
        self.writes.back().copied().filter(|write| write.end > from)
    }

    /// The stamped write whose last byte is before `end`.
    pub fn until(&self, end: u64) -> Option<Write> {
        let mut writes = self.writes.iter().rev();
        writes.find(|write| write.end == end).copied()
    }

    /// What became of stamps since this was asked last.
    pub fn take_counts(&mut self) -> Counts {
        std::mem::take(&mut self.counts)
    }
}

/// Keeps the first.
const fn take<T: Copy>(place: &mut Option<T>, stamp: Option<T>) -> bool {
    if place.is_none() && stamp.is_some() {
        *place = stamp;
        true
    } else {
        false
    }
}

#[cfg(test)]
mod tests;
