//! Where the time of one request went, from the stamps of its way.
//!
//! Every difference is one of times of the same clock, the system's: stamps of cards are brought to it before
//! they come here. One-way delays are not invented: what lies between the request's last byte at the device and
//! the answer's first byte is the network's, there and back, as far as the round-trip time says, and the
//! server's for the rest.

use super::{cards, clock::Nanos, control_messages::Stamps};

/// Parts of a request's time, in the order of its way.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stage {
    /// From the request's first byte to its last, waiting behind requests before it on the same connection,
    /// and waiting for the client to read the answer.
    Client,
    /// Ready to be read, until the agent read it: both ways.
    Queue,
    /// In the agent and the kernel below it: both ways.
    Mesh,
    /// Tries that failed, and the waits after them.
    Retries,
    /// Until there was a connection to the server.
    Connect,
    /// From the device to the peer's kernel and back.
    Network,
    /// The rest, until the answer's first byte.
    Server,
    /// From the answer's first byte to its last.
    Transfer,
}

impl Stage {
    /// All of them.
    pub const ALL: [Self; 8] = [
        Self::Client,
        Self::Queue,
        Self::Mesh,
        Self::Retries,
        Self::Connect,
        Self::Network,
        Self::Server,
        Self::Transfer,
    ];

    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Queue => "queue",
            Self::Mesh => "mesh",
            Self::Retries => "retries",
            Self::Connect => "connect",
            Self::Network => "network",
            Self::Server => "server",
            Self::Transfer => "transfer",
        }
    }
}

/// Where a stamp comes from, the best first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// The network card, brought to the system's clock.
    Hardware,
    /// The kernel, at the device.
    Software,
    /// The kernel, before the queue of a device whose driver does not stamp.
    Scheduled,
    /// The agent's own look at the clock, after the system call.
    #[default]
    Clock,
}

impl Source {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Hardware, Self::Software, Self::Scheduled, Self::Clock];

    /// As it is told.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hardware => "hardware",
            Self::Software => "software",
            Self::Scheduled => "scheduled",
            Self::Clock => "clock",
        }
    }
}

/// A time, and who says so.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// When.
    pub at: Nanos,
    /// Who says so.
    pub source: Source,
    /// How far off it may be, in nanoseconds: of stamps that were brought from a card's clock.
    pub uncertainty: u32,
}

/// A packet that came in, and when the agent read it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Arrival {
    /// When it came.
    pub stamp: Stamp,
    /// When it was read.
    pub read: Nanos,
}

impl Arrival {
    /// One that was read just now, with these stamps.
    pub fn now(stamps: Option<Stamps>) -> Self {
        let read = Nanos::now();
        let at_reading = Stamp {
            at: read,
            ..Stamp::default()
        };
        Self {
            stamp: stamps.and_then(cards::best).unwrap_or(at_reading),
            read,
        }
    }
}

/// The stamps of one request's way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waypoints {
    /// The request's first byte came.
    pub received_first: Arrival,
    /// And its last.
    pub received_last: Arrival,
    /// The answer before it on the same connection was written: not before that it could be looked at.
    pub turn: Option<Nanos>,
    /// The first try began.
    pub first_try: Nanos,
    /// The one that was answered began.
    pub last_try: Nanos,
    /// It had a connection.
    pub connected: Nanos,
    /// Its last byte was handed to the kernel.
    pub written: Nanos,
    /// To the device's queue.
    pub scheduled: Option<Nanos>,
    /// To the device.
    pub sent: Stamp,
    /// And again, as nobody had acknowledged it: the last time.
    pub sent_again: Option<Nanos>,
    /// The peer's kernel acknowledged that.
    pub acknowledged: Option<Nanos>,
    /// The round-trip time that the network has at least, as far as it is known, in nanoseconds.
    pub least_rtt: Option<u64>,
    /// The answer's first byte came.
    pub answered_first: Arrival,
    /// And its last.
    pub answered_last: Arrival,
    /// The answer's last byte was handed to the kernel.
    pub answer_written: Nanos,
    /// To the device.
    pub replied: Stamp,
    /// For how long the client did not read what it was to get, once the answer's end was read; in nanoseconds.
    pub blocked: u64,
    /// The same, before that, as long as the answer's end could have been read.
    pub held_up: u64,
}

/// How long each stage took, in nanoseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stages {
    stages: [u64; Stage::ALL.len()],
    /// All of it.
    pub total: u64,
}

/// Why there are no stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unclear {
    /// The answer began before the request had ended: server and network work at the same time as the client.
    Overlapping,
    /// There was none: of a connection that carries no requests it is only known how TCP is.
    NoRequest,
    /// Times that cannot be: the clock was set, or the stamps of a card and of the kernel differ.
    Inconsistent,
}

/// Two stamps of one packet by different hands may differ by so much the wrong way.
const TOLERANCE: i64 = 50_000;

impl Stages {
    /// How long `stage` took.
    pub const fn get(&self, stage: Stage) -> u64 {
        self.stages[stage as usize]
    }

    fn set(&mut self, stage: Stage, nanos: i64) -> Result<(), Unclear> {
        if nanos < -TOLERANCE {
            return Err(Unclear::Inconsistent);
        }
        self.stages[stage as usize] = nanos.max(0).cast_unsigned();
        Ok(())
    }

    /// What the stamps say.
    pub fn of(way: &Waypoints) -> Result<Self, Unclear> {
        let mut stages = Self::default();
        let last = way.received_last;
        // Not before its turn could anybody do anything for it.
        let begun = way.turn.map_or(last.stamp.at, |it| it.max(last.stamp.at));
        let answer = way.answered_last;
        // Only what came after the answer's end is not in the other stages.
        let written = way.replied.at.since(answer.read.max(answer.stamp.at));
        let blocked = way.blocked.cast_signed().clamp(0, written.max(0));
        let there = answer.read.since(answer.stamp.at);
        // Who cannot write does not read.
        let held_up = way.held_up.cast_signed().clamp(0, there.max(0));
        let client = begun.since(way.received_first.stamp.at) + blocked + held_up;
        stages.set(Stage::Client, client)?;

        let queue_in = last.read.since(begun).max(0);
        let queue_out = there - held_up;
        stages.set(Stage::Queue, queue_in + queue_out)?;

        // What was done while the request was still coming held up nothing.
        let ready = last.read.max(begun);
        let [first_try, last_try, connected] =
            [way.first_try, way.last_try, way.connected].map(|at| at.max(ready));
        let retries = last_try.since(first_try);
        stages.set(Stage::Retries, retries)?;
        let connect = connected.since(last_try);
        stages.set(Stage::Connect, connect)?;

        let sent = match way.sent.source {
            // Not before there was all of it: where nothing is known of the write it is when there was a connection.
            Source::Clock => way.sent.at.max(connected),
            _ => way.sent.at,
        };
        let mesh_in = sent.since(begun) - queue_in - retries - connect;
        let mesh_out = way.replied.at.since(answer.stamp.at) - there - blocked;
        stages.set(Stage::Mesh, mesh_in + mesh_out)?;

        let away = way.answered_first.stamp.at.since(sent);
        if away < -TOLERANCE {
            return Err(Unclear::Overlapping);
        }
        let network = network(way, sent, away);
        stages.set(Stage::Network, network)?;
        stages.set(Stage::Server, away - network)?;

        let transfer = answer.stamp.at.since(way.answered_first.stamp.at);
        stages.set(Stage::Transfer, transfer)?;
        let total = way.replied.at.since(way.received_first.stamp.at);
        stages.total = u64::try_from(total).map_err(|_| Unclear::Inconsistent)?;
        Ok(stages)
    }
}

/// What of the time `away` is the network's.
///
/// The acknowledgement of the request says it, where the peer's kernel sent one at once. Often it waits for the
/// answer, to go with it, or for 40 ms (`TCP_DELACK_MIN`), so that it is only the most that it can be, and
/// the shortest round trip of the connection is what the network takes. What was lost is the network's until it was
/// sent again for the last time.
fn network(way: &Waypoints, sent: Nanos, away: i64) -> i64 {
    let again = way.sent_again.map_or(sent, |again| again.max(sent));
    // Sent again for nothing, if that was acknowledged before.
    let again = match way.acknowledged {
        Some(at) if at < again => sent,
        _ => again,
    };
    let acknowledged = way.acknowledged.map(|at| at.since(again).max(0));
    let least = way.least_rtt.map(u64::cast_signed);
    let network = match (acknowledged, least) {
        (Some(one), Some(other)) => one.min(other),
        (one, other) => one.or(other).unwrap_or_default(),
    };
    (again.since(sent) + network).min(away).max(0)
}

#[cfg(test)]
mod tests;
