//! What is known of one connection's packets: shared by the socket, which collects stamps, and by requests,
//! which want them.

mod log;

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU8, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use self::log::Log;
pub use self::log::Message;
use super::{
    clock::Nanos,
    control_messages::{Stamps, TransmitStamp},
    socket::{Asked, TcpInfo},
    stages::Arrival,
    transmit_log::{Counts, Write},
};

/// So many stamps that nobody has taken are looked for before more are asked for.
const MANY: u32 = 16;
/// And no more are asked for then. Each takes some 830 bytes of a socket's receive buffer, whose default is 128 KiB.
const MOST_UNTAKEN: u32 = 64;

const NOTHING: u8 = 0;
const SENT: u8 = 1;
const WHOLE_WAY: u8 = 2;

/// One connection. As long as nothing is wanted of it, it costs a look at two flags for each read and write.
#[derive(Debug, Default)]
pub struct Leg {
    /// Whether stamps of what comes in are wanted.
    receives: AtomicBool,
    /// Which stamps of what is written are wanted.
    asks: AtomicU8,
    /// Whether the socket was prepared, and what it reports of its writability cannot be relied on.
    is_prepared: AtomicBool,
    /// Bytes that were written since.
    written: AtomicU64,
    /// Stamps that were asked for and not taken from the error queue.
    untaken: AtomicU32,
    /// What is written does not go by a card: the stamps that were asked of cards never came.
    has_no_card: AtomicBool,
    /// For how long there was no room to write, in nanoseconds.
    blocked: AtomicU64,
    /// When there was room again.
    blocked_until: AtomicU64,
    /// More than when it leaves is wanted of the message that is being sent.
    is_whole: AtomicBool,
    /// Something came in since the message began.
    has_arrived: AtomicBool,
    /// The message's end was about to be written.
    has_end: AtomicBool,
    /// It was asked once how the connection is.
    has_info: AtomicBool,
    /// How the connection is, has not been asked since that was wanted.
    wants_info: AtomicBool,
    /// Allocated for connections that are measured only.
    log: Mutex<Option<Box<Log>>>,
}

/// What a leg says of one message that was sent and of what came back.
#[derive(Clone, Copy, Debug, Default)]
pub struct Heard {
    /// The message's last write.
    pub write: Option<Write>,
    /// The first of what came back.
    pub first: Option<Arrival>,
    /// What the kernel said of the connection when the first came.
    pub info: TcpInfo,
    /// Segments that were sent again since this was asked.
    pub resent: u32,
    /// Whether the message's end was about to be written, at least.
    pub has_end: bool,
}

/// The first of what came back for a message.
#[derive(Clone, Copy, Debug)]
pub struct First {
    /// How long after the message's last byte was at the device.
    pub away: Option<Duration>,
}

/// From the last byte of a message at the device to the first byte of what came back.
pub fn away(write: Option<Write>, first: Option<Arrival>) -> Option<Duration> {
    let (write, first) = (write?, first?);
    let away = first.stamp.at.since(write.left().at);
    Some(Duration::from_nanos(u64::try_from(away).ok()?))
}

impl Leg {
    /// A message that is to be measured begins: what comes in and goes out from now on is its own. `is_whole`: stamps of
    /// its whole way are wanted.
    pub fn begin(&self, is_whole: bool) -> Message {
        let from = self.written.load(Ordering::Relaxed);
        let has_end = self.has_end.load(Ordering::Relaxed);
        let message = self.log().get_or_insert_default().begin(from, has_end);
        self.receives.store(true, Ordering::Relaxed);
        self.has_end.store(false, Ordering::Relaxed);
        self.has_arrived.store(false, Ordering::Relaxed);
        self.is_whole.store(is_whole, Ordering::Relaxed);
        message
    }

    /// An answer's end is written from now on: stamps of what was written before are not its own.
    pub fn begin_write(&self) {
        let from = self.written.load(Ordering::Relaxed);
        self.log().get_or_insert_default().begin_write(from);
    }

    /// Nothing is wanted any more of `message`, whose place another may have taken.
    pub fn end(&self, message: Message) {
        let log = self.log();
        if log.as_ref().is_some_and(|log| log.is_current(message)) {
            self.stop();
        }
    }

    /// Nothing is wanted any more.
    pub fn stop(&self) {
        self.receives.store(false, Ordering::Relaxed);
        self.asks.store(NOTHING, Ordering::Relaxed);
    }

    /// Whether stamps of what comes in are wanted.
    pub fn set_receiving(&self, is_wanted: bool) {
        self.receives.store(is_wanted, Ordering::Relaxed);
    }

    /// What is written from now on has the last byte of the message that was begun in it.
    pub fn ask_way(&self) {
        self.ask(self.is_whole.load(Ordering::Relaxed));
    }

    /// What is written from now on has a message's last byte in it: the stamp of when it leaves is wanted, or those of its
    /// whole way.
    pub fn ask(&self, is_whole: bool) {
        // Of a new connection it is what the network takes.
        if is_whole || !self.has_info.load(Ordering::Relaxed) {
            self.wants_info.store(true, Ordering::Relaxed);
        }
        let asks = if is_whole { WHOLE_WAY } else { SENT };
        self.asks.fetch_max(asks, Ordering::Relaxed);
        self.has_end.store(true, Ordering::Relaxed);
        // What came before is none of the answer.
        if self.has_arrived.swap(false, Ordering::Relaxed)
            && let Some(log) = self.log().as_mut()
        {
            log.first = None;
        }
    }

    /// The answer began with what came in last: what came before was only said before it.
    pub fn began_with_last(&self) {
        if let Some(log) = self.log().as_mut() {
            log.first = log.last;
        }
    }

    /// Whether it is to be asked how the connection is: once for each whole way.
    pub(super) fn wants_info(&self) -> bool {
        self.wants_info.load(Ordering::Relaxed) && self.wants_info.swap(false, Ordering::Relaxed)
    }

    /// What is written from now on: the stamp of when it leaves is wanted.
    pub fn ask_sent(&self) {
        self.asks.store(SENT, Ordering::Relaxed);
    }

    /// No more stamps of what is written are wanted.
    pub fn ask_nothing(&self) {
        self.asks.store(NOTHING, Ordering::Relaxed);
    }

    /// What was heard of `message`.
    pub fn heard(&self, message: Message) -> Heard {
        let has_end = self.has_end.load(Ordering::Relaxed);
        let mut log = self.log();
        log.as_mut()
            .map_or_else(Heard::default, |log| log.heard(message, has_end))
    }

    /// What was heard of a message whose last byte is before the offset `end`, as far as the connection knows it.
    pub fn heard_until(&self, end: Option<u64>) -> Heard {
        let mut log = self.log();
        let Some(log) = log.as_mut() else {
            return Heard::default();
        };
        Heard {
            write: end.and_then(|end| log.transmit.until(end)),
            info: log.info,
            resent: log.take_resent(),
            ..Heard::default()
        }
    }

    /// From the last byte of `message` at the device to the first byte of what came back.
    pub fn away(&self, message: Message) -> Option<Duration> {
        self.log().as_ref()?.away(message)
    }

    /// What came back for `message` has ended, and nothing of it is wanted any more: the last of it, and what became of
    /// stamps since this was asked last.
    pub fn end_of_answer(&self, message: Message) -> (Option<Arrival>, Counts) {
        let mut log = self.log();
        log.as_mut().map_or_else(Default::default, |log| {
            if log.is_current(message) {
                self.stop();
            }
            log.end(message)
        })
    }

    /// The last write that stamps were wanted of, since the message or its end began.
    pub fn last_write(&self) -> Option<Write> {
        self.log().as_ref()?.last_write()
    }

    /// Bytes that were written since it was prepared.
    pub fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// The write whose last byte is before the offset `end`.
    pub fn write_until(&self, end: u64) -> Option<Write> {
        self.log().as_ref()?.transmit.until(end)
    }

    /// For how long the peer did not read, since the connection began, in nanoseconds.
    pub fn blocked(&self) -> u64 {
        self.blocked.load(Ordering::Relaxed)
    }

    /// When that ended last.
    pub fn blocked_until(&self) -> Nanos {
        Nanos(self.blocked_until.load(Ordering::Relaxed))
    }

    /// What became of stamps since this was asked last.
    pub fn take_counts(&self) -> Counts {
        let mut log = self.log();
        log.as_mut()
            .map_or_else(Counts::default, |log| log.transmit.take_counts())
    }

    /// The last of what came in.
    pub fn last_arrival(&self) -> Option<Arrival> {
        self.log().as_ref()?.last
    }

    /// Whether stamps of what comes in are wanted.
    pub fn is_receiving(&self) -> bool {
        self.receives.load(Ordering::Relaxed)
    }

    /// Whether no stamps of what is written are wanted.
    #[cfg(test)]
    pub fn asked_nothing(&self) -> bool {
        self.asks.load(Ordering::Relaxed) == NOTHING
    }

    pub(super) fn asked(&self) -> Option<Asked> {
        match self.asks.load(Ordering::Relaxed) {
            SENT => Some(Asked::SENT),
            WHOLE_WAY => Some(Asked::WHOLE_WAY),
            _ => None,
        }
    }

    /// Whether anything was ever wanted of it.
    pub fn is_prepared(&self) -> bool {
        self.is_prepared.load(Ordering::Relaxed)
    }

    pub(super) fn prepared(&self) {
        self.is_prepared.store(true, Ordering::Relaxed);
    }

    /// Whether stamps are still to come.
    pub(super) fn is_waiting(&self) -> bool {
        self.log().as_ref().is_some_and(|log| log.is_waiting)
    }

    /// Something came in and was read just now: the first since the message began, or not.
    pub fn arrived(&self, stamps: Option<Stamps>) -> Option<First> {
        let arrival = Arrival::now(stamps);
        self.has_arrived.store(true, Ordering::Relaxed);
        self.log().get_or_insert_default().arrived(arrival)
    }

    /// Nobody will ask for writes up to the offset `end`.
    pub fn forget_writes(&self, end: u64) {
        if let Some(log) = self.log().as_mut() {
            log.transmit.forget(end);
        }
    }

    /// Whether many stamps may wait in the error queue.
    pub(super) fn has_many_untaken(&self) -> bool {
        self.untaken.load(Ordering::Relaxed) >= MANY
    }

    /// Whether more stamps can be asked for, now that those that have come are taken: what waits in the error queue takes
    /// room from what is to be received, until there is none, and then nothing is received any more.
    pub(super) fn has_room_for_stamps(&self) -> bool {
        let log = self.log();
        let Some(log) = log.as_ref() else {
            return true;
        };
        let now = Nanos::now();
        let has_no_card = log.transmit.has_no_card();
        self.has_no_card.store(has_no_card, Ordering::Relaxed);
        // Others never came.
        let missing = log.transmit.missing(now);
        self.untaken.store(missing, Ordering::Relaxed);
        missing < MOST_UNTAKEN
    }

    /// Whether what is written may go by a card, as far as is known.
    pub(super) fn may_have_card(&self) -> bool {
        !self.has_no_card.load(Ordering::Relaxed)
    }

    /// Bytes were written, with stamps asked for or without.
    pub(super) fn wrote(&self, count: usize, asked: Option<Asked>) {
        let before = self.written.fetch_add(count as u64, Ordering::Relaxed);
        if let Some(asked) = asked {
            self.untaken.fetch_add(asked.count(), Ordering::Relaxed);
            let (end, now) = (before + count as u64, Nanos::now());
            self.log().get_or_insert_default().wrote(end, now, asked);
        }
    }

    /// There was no room to write for so long, in nanoseconds.
    pub(super) fn add_blocked(&self, nanos: u64, until: Nanos) {
        self.blocked.fetch_add(nanos, Ordering::Relaxed);
        self.blocked_until.store(until.0, Ordering::Relaxed);
    }

    /// Takes stamps with `take`, which says how many there were. Whether none is awaited any more.
    pub(super) fn stamped(
        &self,
        take: impl FnOnce(&mut dyn FnMut(TransmitStamp)) -> usize,
    ) -> bool {
        let mut log = self.log();
        let log = log.get_or_insert_default();
        let taken = log.stamped(take);
        if taken > 0 {
            let left = self.untaken.load(Ordering::Relaxed);
            let left = left.saturating_sub(taken as u32);
            self.untaken.store(left, Ordering::Relaxed);
        }
        !log.is_waiting
    }

    /// What the kernel says of the connection.
    pub(super) fn informed(&self, info: TcpInfo) {
        self.log().get_or_insert_default().informed(info);
        self.has_info.store(true, Ordering::Relaxed);
    }

    fn log(&self) -> MutexGuard<'_, Option<Box<Log>>> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
