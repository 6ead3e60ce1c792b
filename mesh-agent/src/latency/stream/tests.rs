//! Connections of this machine, stamped by its kernel.

mod watching;

use std::{
    future::poll_fn,
    thread,
    time::{Duration, Instant},
};

use nix::sys::{
    pthread::{pthread_kill, pthread_self},
    signal::Signal,
};
use proptest::prelude::*;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    runtime::Builder,
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};

use super::*;
use crate::latency::{
    Arrival, Asked, Message, Nanos, Source, Write, loopback, transmit_log::Counts,
};

/// Nothing on this machine takes so long.
const LONG: Duration = Duration::from_secs(10);

async fn stamped() -> (StampedStream, TcpStream) {
    let (one, other) = loopback::pair().await.unwrap();
    (StampedStream::new(one, Arc::default()), other)
}

/// As one that was stamped twice.
async fn often_stamped() -> (StampedStream, TcpStream) {
    let (mut stream, peer) = stamped().await;
    assert!(stream.prepare());
    stream.socket.read_only();
    assert!(is_read_only(&stream));
    (stream, peer)
}

fn is_read_only(stream: &StampedStream) -> bool {
    matches!(stream.socket, Watched::Reading(_))
}

/// Waits until `is_so`, with the stamps that have come.
async fn until(stream: &StampedStream, is_so: impl Fn(&Leg) -> bool) {
    let waiting = async {
        while !is_so(stream.leg()) {
            sleep(Duration::from_micros(100)).await;
            stream.take_stamps();
        }
    };
    timeout(LONG, waiting).await.expect("a stamp never came");
}

/// Reads until `count` bytes have come.
async fn read(stream: &mut StampedStream, count: usize) {
    let mut bytes = vec![0; count];
    let read = stream.read_exact(&mut bytes);
    timeout(LONG, read).await.unwrap().unwrap();
}

/// From now on all stamps are wanted.
fn ask_whole_way(leg: &Leg) -> Message {
    let message = leg.begin(true);
    leg.ask_way();
    message
}

/// What is wanted of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wanted {
    Nothing,
    Sent,
    Way,
}

/// What is known of a write.
struct Written {
    end: u64,
    from: Nanos,
    to: Nanos,
    asked: Option<Asked>,
}

impl Written {
    fn is_in(&self, at: Nanos) -> bool {
        self.from <= at && at <= self.to
    }

    fn check(&self, write: Option<Write>) {
        let Some(asked) = self.asked else {
            assert_eq!(write, None, "nobody asked");
            return;
        };
        let write = write.unwrap_or_else(|| panic!("the write until {} is not known", self.end));
        assert_eq!(write.end, self.end);
        assert!(self.is_in(write.written));
        assert!(write.sent.is_some_and(|at| self.is_in(at)), "{write:?}");
        assert_eq!(write.left().source, Source::Software);
        if asked == Asked::WHOLE_WAY {
            assert!(write.scheduled.is_some_and(|at| self.is_in(at)));
            assert!(write.scheduled <= write.sent);
            assert!(write.sent <= write.acknowledged);
        } else {
            assert_eq!((write.scheduled, write.acknowledged), (None, None));
        }
    }
}

async fn check_writes(all: Vec<(Wanted, usize)>, is_often: bool) {
    let (stream, peer) = if is_often {
        often_stamped().await
    } else {
        stamped().await
    };
    let leg = stream.leg();
    let (mut end, mut stamps) = (0, 0);
    let mut writes: Vec<Written> = Vec::new();
    // Those that nobody can ask for any more.
    let mut past = 0;
    for (wanted, length) in all {
        match wanted {
            Wanted::Nothing => leg.ask_nothing(),
            Wanted::Sent => {
                leg.ask_nothing();
                leg.ask_sent();
            }
            Wanted::Way => {
                leg.ask_nothing();
                stream.take_stamps();
                for write in &writes[past..] {
                    write.check(leg.write_until(write.end));
                }
                past = writes.len();
                leg.begin(true);
                leg.ask_way();
            }
        }
        let asked = leg.asked();
        assert_eq!(asked.is_none(), wanted == Wanted::Nothing);
        let bytes = vec![b'a'; length];
        let begin = length / 3;
        let from = Nanos::now();
        let slices = [IoSlice::new(&bytes[..begin]), IoSlice::new(&bytes[begin..])];
        assert_eq!(stream.try_write(&slices).unwrap(), length);
        let to = Nanos::now();
        loopback::take(&peer).unwrap();
        stamps += match asked {
            None => 0,
            Some(Asked::SENT) => 1,
            Some(_) => 3,
        };
        // They are counted from when one was first asked for.
        if leg.is_prepared() {
            end += length as u64;
            writes.push(Written {
                end,
                from,
                to,
                asked,
            });
        }
        assert_eq!(leg.written(), end);
        stream.take_stamps();
        let last = writes.iter().rev().find(|it| it.asked.is_some());
        if wanted != Wanted::Nothing {
            let write = last.map(|it| it.end);
            assert_eq!(leg.last_write().map(|it| it.end), write);
        }
    }
    stream.take_stamps();
    for write in &writes[past..] {
        write.check(leg.write_until(write.end));
        assert_eq!(leg.write_until(write.end - 1), None);
    }
    let counts = Counts {
        matched: stamps,
        ..Counts::default()
    };
    assert_eq!(leg.take_counts(), counts);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// However often nothing is asked between: a stamp says of which byte it is.
    #[test]
    fn every_stamp_that_is_asked_for_finds_its_write(
        all in prop::collection::vec(
            (
                prop::sample::select(vec![Wanted::Nothing, Wanted::Sent, Wanted::Way]),
                2..5_000_usize,
            ),
            1..32,
        ),
        is_often: bool,
    ) {
        let runtime = Builder::new_current_thread().enable_all().build();
        runtime.unwrap().block_on(check_writes(all, is_often));
    }
}

#[tokio::test]
async fn a_connection_that_nothing_is_wanted_of_is_left_alone() {
    let (mut stream, mut peer) = stamped().await;
    stream.write_all(b"there").await.unwrap();
    peer.write_all(b"back").await.unwrap();
    read(&mut stream, 4).await;
    let leg = stream.leg();
    assert!(!leg.is_prepared());
    assert_eq!(leg.written(), 0);
    assert_eq!(leg.last_arrival(), None);
}

/// What a peer that does not read makes of one message: many writes, of which the last has its end.
#[tokio::test]
async fn of_a_message_that_is_taken_in_parts_the_last_part_is_known() {
    taken_in_parts(stamped().await).await;
    taken_in_parts(often_stamped().await).await;
}

async fn taken_in_parts((mut stream, mut peer): (StampedStream, TcpStream)) {
    const LENGTH: usize = 3 << 20;
    const STALL: Duration = Duration::from_millis(50);
    let socket = SockRef::from(&stream);
    socket.set_send_buffer_size(256 << 10).unwrap();
    let leg = Arc::clone(stream.leg());
    ask_whole_way(&leg);
    let begun = Nanos::now();
    let reading = tokio::spawn(async move {
        // Twice: there is no room once, at least.
        sleep(STALL).await;
        let mut bytes = vec![0; LENGTH / 2];
        peer.read_exact(&mut bytes).await.unwrap();
        sleep(STALL).await;
        bytes.resize(LENGTH - LENGTH / 2, 0);
        peer.read_exact(&mut bytes).await.unwrap();
        peer
    });
    let bytes = vec![b'a'; LENGTH];
    let write = timeout(LONG, stream.write_all(&bytes)).await;
    write.expect("it waits for ever").unwrap();
    let written = Nanos::now();
    leg.ask_nothing();
    assert_eq!(leg.written(), LENGTH as u64);
    let _peer = reading.await.unwrap();

    let blocked = Duration::from_nanos(leg.blocked());
    assert!(blocked >= STALL, "{blocked:?}");
    assert!(blocked <= written.after(begun), "{blocked:?}");
    assert!(begun < leg.blocked_until() && leg.blocked_until() <= written);

    let is_whole = |leg: &Leg| leg.last_write().is_some_and(|it| it.acknowledged.is_some());
    until(&stream, is_whole).await;
    let write = leg.last_write().unwrap();
    assert_eq!(write.end, LENGTH as u64);
    assert!(STALL <= write.written.after(begun));
    assert!(write.written <= written);
    assert!(write.sent <= write.acknowledged);
    let counts = leg.take_counts();
    assert_eq!(counts.unmatched, 0);
    // Of each of some writes all three.
    assert!(counts.matched > 3, "{counts:?}");
}

/// After a stamp, epoll says of the runtime's registration that there is room, for good: who waits must not spin.
#[tokio::test]
async fn who_waits_for_room_sleeps_whatever_stamps_come() {
    wait_for_room(stamped().await).await;
    wait_for_room(often_stamped().await).await;
}

async fn wait_for_room((stream, peer): (StampedStream, TcpStream)) {
    let leg = Arc::clone(stream.leg());
    ask_whole_way(&leg);
    let bytes = vec![b'a'; 64 << 10];
    let mut polls = 0;
    let writing = poll_fn(|context| -> Poll<()> {
        loop {
            if stream.try_write(&[IoSlice::new(&bytes)]).is_err() {
                polls += 1;
                let room = ready!(stream.poll_room(context));
                room.unwrap();
            }
        }
    });
    let waited = timeout(Duration::from_millis(200), writing).await;
    assert!(waited.is_err(), "it writes for ever");
    assert!(polls < 200, "{polls} polls");
    drop(peer);
}

#[tokio::test]
async fn what_came_before_a_message_is_none_of_its_answer() {
    answered_in_parts(stamped().await).await;
    answered_in_parts(often_stamped().await).await;
}

async fn answered_in_parts((mut stream, mut peer): (StampedStream, TcpStream)) {
    let leg = Arc::clone(stream.leg());
    leg.set_receiving(true);
    peer.write_all(b"before").await.unwrap();
    read(&mut stream, 6).await;
    assert!(leg.heard(Message::default()).first.is_some());

    let message = ask_whole_way(&leg);
    assert_eq!((leg.heard(message).first, leg.last_arrival()), (None, None));
    assert!(leg.heard(message).has_end);
    stream.write_all(b"request").await.unwrap();
    let mut all: Vec<Arrival> = Vec::new();
    for part in [&b"interim"[..], b"answer", b"its end"] {
        loopback::take(&peer).unwrap();
        let from = Nanos::now();
        peer.write_all(part).await.unwrap();
        read(&mut stream, part.len()).await;
        let arrival = leg.last_arrival().unwrap();
        assert!(from <= arrival.stamp.at && arrival.stamp.at <= arrival.read);
        assert!(arrival.read <= Nanos::now());
        all.push(arrival);
        if all.len() == 2 {
            assert_eq!(leg.heard(message).first, Some(all[0]));
            leg.began_with_last();
        }
    }
    let heard = leg.heard(message);
    assert_eq!(
        (heard.first, leg.last_arrival()),
        (Some(all[1]), Some(all[2]))
    );
    // What the answer's first part found when it came.
    assert_ne!(heard.info.rtt, Duration::ZERO);
    let write = heard.write.unwrap();
    assert!(write.sent.is_some());
    let away = all[1].stamp.at.after(write.left().at);
    assert_eq!(leg.away(message), Some(away));

    // The next one.
    let next = leg.begin(true);
    let heard = leg.heard(next);
    assert_eq!(
        (heard.write, heard.first, leg.last_arrival()),
        (None, None, None)
    );
    assert!(!heard.has_end);
}

/// Signals that the agent handles, such as SIGHUP, interrupt whatever thread they find.
#[tokio::test]
async fn a_look_that_a_signal_interrupts_is_no_error() {
    let number = SignalKind::user_defined1();
    let _handled = signal(number).unwrap();
    let (stream, peer) = stamped().await;
    let stream = stream.into_was_stamped().unwrap();
    let (looking, done) = (pthread_self(), AtomicBool::new(false));
    let begun = Instant::now();
    thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Ordering::Relaxed) {
                pthread_kill(looking, Signal::SIGUSR1).unwrap();
            }
        });
        let mut is_in_error = false;
        while !is_in_error && begun.elapsed() < Duration::from_secs(1) {
            is_in_error = stream.is_in_error();
        }
        done.store(true, Ordering::Relaxed);
        assert!(!is_in_error, "after {:?}", begun.elapsed());
    });
    // One that there is is still seen.
    SockRef::from(&peer)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(peer);
    assert!(stream.is_in_error());
}

#[tokio::test]
async fn an_acknowledgement_that_comes_after_the_other_stamps_were_taken_is_taken_with_the_answer()
{
    let (mut stream, mut peer) = stamped().await;
    let leg = Arc::clone(stream.leg());
    SockRef::from(&peer).set_tcp_quickack(false).unwrap();
    let message = ask_whole_way(&leg);
    stream.write_all(b"request").await.unwrap();
    leg.ask_nothing();
    let is_pending = |leg: &Leg| leg.last_write().is_some_and(|it| it.is_pending());
    until(&stream, |leg| {
        leg.last_write().is_some_and(|it| !it.is_awaited())
    })
    .await;
    assert!(is_pending(&leg), "it was acknowledged before it was read");

    loopback::take(&peer).unwrap();
    peer.write_all(b"answer").await.unwrap();
    read(&mut stream, 6).await;
    assert!(leg.heard(message).write.unwrap().acknowledged.is_some());
}

/// The kernel stamps what comes in once anybody wants that, which takes effect a little later.
#[tokio::test]
async fn what_comes_in_is_stamped_by_the_kernel() {
    let (mut stream, mut peer) = stamped().await;
    let leg = Arc::clone(stream.leg());
    leg.set_receiving(true);
    let stamped = async {
        loop {
            let from = Nanos::now();
            peer.write_all(b"a").await.unwrap();
            let to = Nanos::now();
            sleep(Duration::from_millis(2)).await;
            read(&mut stream, 1).await;
            let arrival = leg.last_arrival().unwrap();
            if arrival.stamp.source == Source::Software {
                assert!(from <= arrival.stamp.at && arrival.stamp.at <= to);
                assert!(arrival.read.after(arrival.stamp.at) >= Duration::from_millis(1));
                return;
            }
            assert_eq!(arrival.stamp.at, arrival.read);
        }
    };
    timeout(LONG, stamped).await.expect("nothing is stamped");
}
