//! Streams between each other, whose frames are read and written in any pieces over a real connection: what is said
//! of each is what offsets in the bytes say.

mod crowd;
mod messages;
mod resets;
mod under_load;

use std::{collections::HashSet, future::poll_fn, io::IoSlice};

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{io::AsyncWriteExt as _, net::TcpStream, runtime::Builder};

use super::*;
use crate::latency::{Nanos, Rate, Source, Unclear, Write, loopback};
use messages::{Interleaved, Message, interleaved, message};

/// A connection, and its other end.
struct Connection {
    stamps: Arc<StreamStamps>,
    stream: StampedStream,
    peer: TcpStream,
    read: Frames,
    written: Frames,
    random: SmallRng,
    /// Bytes that were read, and the reads: offsets after the last, and arrivals if anybody wanted them.
    taken: usize,
    reads: Vec<(usize, Option<Arrival>)>,
    /// What waits to be written.
    waiting: Vec<u8>,
    /// The writes: offsets after the last byte, and from when to when.
    writes: Vec<(usize, Nanos, Nanos)>,
    /// Those that were stamped.
    stamped: u64,
}

impl Connection {
    async fn new(stamps: StreamStamps, seed: u64) -> Self {
        let (peer, stream) = loopback::pair().await.unwrap();
        let stamps = Arc::new(stamps);
        let stream = StampedStream::new(stream, Arc::clone(stamps.leg()));
        Self {
            stamps,
            stream,
            peer,
            read: Frames::after(0),
            written: Frames::after(0),
            random: SmallRng::seed_from_u64(seed),
            taken: 0,
            reads: Vec::new(),
            waiting: Vec::new(),
            writes: Vec::new(),
            stamped: 0,
        }
    }

    /// So many bytes come, and are read in one piece or several.
    async fn receive(&mut self, bytes: &[u8]) {
        self.peer.write_all(bytes).await.unwrap();
        let all = self.taken + bytes.len();
        while self.taken < all {
            let stream = &mut self.stream;
            poll_fn(|context| stream.poll_read_ready(context))
                .await
                .unwrap();
            let mut buffer = Vec::with_capacity(self.random.random_range(1..1_000));
            let is_receiving = self.stamps.leg().is_receiving();
            let Ok(count) = stream.try_read_more(&mut buffer) else {
                continue;
            };
            assert!(count > 0);
            // The kernel does not acknowledge at once as long as stamps wait.
            stream.take_stamps();
            loopback::acknowledge(stream).unwrap();
            self.taken += count;
            let arrival = self.stamps.leg().last_arrival();
            self.reads
                .push((self.taken, arrival.filter(|_| is_receiving)));
            self.stamps.read(&mut self.read, &buffer, stream);
        }
    }

    /// What the byte at `offset` came with, if it has come and anybody wanted to know.
    fn arrival(&self, offset: usize) -> Option<Arrival> {
        let (_, arrival) = self.reads.iter().find(|(end, _)| *end > offset)?;
        *arrival
    }

    /// The library writes.
    fn write(&mut self, bytes: &[u8]) {
        let waiting = self.waiting.len();
        self.stamps
            .writes(&mut self.written, bytes, waiting, &self.stream);
        self.waiting.extend(bytes);
    }

    /// Some of what waits is written, or all.
    fn flush(&mut self, most: usize) {
        let count = most.min(self.waiting.len());
        if count == 0 {
            return;
        }
        // What is not acknowledged could hold up what is written.
        loopback::take(&self.peer).unwrap();
        let is_asked = !self.stamps.leg().asked_nothing();
        self.stamped += u64::from(is_asked);
        let from = Nanos::now();
        let slices = [IoSlice::new(&self.waiting[..count])];
        let count = self.stream.try_write(&slices).unwrap();
        let to = Nanos::now();
        self.waiting.drain(..count);
        self.stamps.wrote();
        let before = self.writes.last().map_or(0, |write| write.0);
        self.writes.push((before + count, from, to));
    }

    /// The write that the byte before `offset` went with.
    fn write_of(&self, offset: usize) -> Option<(usize, Nanos, Nanos)> {
        self.writes.iter().find(|(end, ..)| *end >= offset).copied()
    }

    fn is_by_chance(&mut self, share: f64) -> bool {
        self.random.random_bool(share)
    }
}

fn run<T>(test: impl Future<Output = T>) -> T {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.unwrap().block_on(test)
}

fn book(share: f64) -> Arc<Book> {
    let book = Arc::<Book>::default();
    let rate = Rate {
        share,
        most_per_second: u32::MAX,
    };
    book.apply(rate, false);
    book
}

/// Requests come: of those that are measured it is known when.
async fn check_requests(all: Interleaved, pieces: Vec<usize>, share: f64, seed: u64) {
    let stamps = StreamStamps::of_client(book(share), &Sampler::default());
    let mut connection = Connection::new(stamps, seed).await;
    let mut watched: HashSet<u32> = HashSet::new();
    let mut forgotten: HashSet<u32> = HashSet::new();
    let mut left = &all.bytes[..];
    let mut pieces = pieces.into_iter().cycle();
    while !left.is_empty() {
        let count = pieces.next().unwrap().min(left.len());
        connection.receive(&left[..count]).await;
        left = &left[count..];
        for places in &all.places {
            let stream = places.stream;
            let has_begun = places.heads[0] <= connection.taken;
            let is_watched = connection
                .stamps
                .is_for(stream, &Sampler::default(), Instant::now());
            if is_watched && watched.insert(stream) {
                assert!(has_begun, "it has not begun");
            }
            if forgotten.contains(&stream) {
                assert!(!is_watched);
                assert_eq!(connection.stamps.received(stream), None);
                continue;
            }
            assert_eq!(is_watched, watched.contains(&stream), "{stream}");
            assert!(share < 1.0 || is_watched == has_begun, "{stream}");
            if is_watched {
                let first = connection.arrival(places.heads[0] - 1);
                let last = connection.arrival(places.end - 1);
                assert!(first.is_some(), "nobody knows when {stream} came");
                let received = connection.stamps.received(stream);
                assert_eq!(received, first.map(|first| (first, last)), "{stream}");
            }
            if is_watched && connection.is_by_chance(0.05) {
                connection.stamps.forget(stream);
                forgotten.insert(stream);
            }
        }
    }
}

/// Answers go out: each was there with the write that its end went with.
async fn check_replies(requests: Vec<u32>, all: Interleaved, pieces: Vec<usize>, seed: u64) {
    let book = book(1.0);
    let stamps = StreamStamps::of_client(Arc::clone(&book), &Sampler::default());
    let mut connection = Connection::new(stamps, seed).await;
    for stream in requests {
        connection.receive(&Message::head(stream).bytes()).await;
        assert!(
            connection
                .stamps
                .is_for(stream, &Sampler::default(), Instant::now())
        );
    }
    // What becomes of each is known before its end is written.
    let mut left = &all.bytes[..];
    let mut pieces = pieces.into_iter().cycle();
    let (mut passed, mut given_up) = (0, HashSet::new());
    let mut is_told = HashSet::new();
    while !left.is_empty() || !connection.waiting.is_empty() {
        let count = pieces.next().unwrap().min(left.len());
        for places in &all.places {
            let stream = places.stream;
            if !(passed + 1..=passed + count).contains(&places.end) || !is_told.insert(stream) {
                continue;
            }
            if connection.is_by_chance(0.1) {
                connection.stamps.forget(stream);
                given_up.insert(stream);
                continue;
            }
            let stamps = &connection.stamps;
            let path = format!("/{stream}");
            let measured = Measured::of_stream(&book, stamps, stream, &path);
            Box::new(measured).ended();
        }
        connection.write(&left[..count]);
        left = &left[count..];
        passed += count;
        if connection.is_by_chance(0.6) {
            let most = connection.random.random_range(0..3_000);
            connection.flush(most);
            connection.stamps.finish(&connection.stream, false);
        }
    }
    connection.stamps.finish(&connection.stream, false);
    let traces = book.traces(usize::MAX, |_| true);
    assert_eq!(traces.len() + given_up.len(), all.places.len());
    for trace in traces {
        let ends = &mut all.places.iter();
        let places = ends.find(|it| trace.path.to_string() == format!("/{}", it.stream));
        let (_, from, to) = connection.write_of(places.unwrap().end).unwrap();
        let way = &trace.way;
        assert!(from <= way.answer_written && way.answer_written <= to);
        assert_eq!(way.replied.source, Source::Software);
        assert!(from <= way.replied.at && way.replied.at <= to);
        assert_ne!(trace.outcome.stages, Err(Unclear::Overlapping));
    }
    let (told, left) = (book.counts().stamps, connection.stamps.leg().take_counts());
    assert_eq!(told.matched + left.matched, connection.stamped);
    assert_eq!(told.unmatched + left.unmatched, 0);
    assert!(all.places.iter().all(|it| !connection.stamps.is_for(
        it.stream,
        &Sampler::default(),
        Instant::now()
    )));
}

/// Requests go to a server, and its answers come.
async fn check_exchanges(
    requests: Interleaved,
    answers: Interleaved,
    pieces: Vec<usize>,
    seed: u64,
) {
    let mut connection = Connection::new(StreamStamps::default(), seed).await;
    for places in &requests.places {
        connection.stamps.watch(places.stream, true);
    }
    let mut pieces = pieces.into_iter().cycle();
    let mut left = &requests.bytes[..];
    while !left.is_empty() || !connection.waiting.is_empty() {
        let count = pieces.next().unwrap().min(left.len());
        connection.write(&left[..count]);
        left = &left[count..];
        let most = connection.random.random_range(0..6_000);
        connection.flush(most);
    }
    for places in &requests.places {
        assert!(connection.stamps.heard(places.stream).has_end);
        // Its answer comes once that was sent.
        connection.stream.take_stamps();
        let (end, from, to) = connection.write_of(places.end).unwrap();
        let is_it = |write: &Write| {
            write.end == end as u64
                && (from..=to).contains(&write.written)
                && write.sent.is_some_and(|at| (from..=to).contains(&at))
        };
        let write = connection.stamps.heard(places.stream).write;
        assert!(write.is_some_and(|it| is_it(&it)), "{write:?} is not {end}");
    }
    let mut left = &answers.bytes[..];
    let mut interim: Vec<usize> = answers.places.iter().map(|_| 0).collect();
    while !left.is_empty() {
        let count = pieces.next().unwrap().min(left.len());
        connection.receive(&left[..count]).await;
        left = &left[count..];
        for (places, dealt_with) in answers.places.iter().zip(&mut interim) {
            // What was said before the answer is dealt with some time later.
            let come = places.heads.iter().filter(|it| **it <= connection.taken);
            let come = come.count().min(places.interim);
            let is_all = left.is_empty() || connection.is_by_chance(0.5);
            while is_all && *dealt_with < come {
                connection.stamps.forget_interim(places.stream);
                *dealt_with += 1;
            }
            if *dealt_with < come {
                continue;
            }
            let heard = connection.stamps.heard(places.stream);
            let first = places.heads.get(*dealt_with);
            let first = first.and_then(|head| connection.arrival(head - 1));
            assert_eq!(heard.first, first, "answer on {}", places.stream);
            let received = connection.stamps.received(places.stream);
            let last = received.and_then(|(_, last)| last);
            assert_eq!(last, connection.arrival(places.end - 1));
        }
    }
    let counts = connection.stamps.leg().take_counts();
    assert_eq!(counts.unmatched, 0);
}

fn pieces() -> impl Strategy<Value = Vec<usize>> {
    let piece = prop_oneof![1..12_usize, 1..300_usize, 1..5_000_usize];
    prop::collection::vec(piece, 4..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn every_request_has_its_own_arrivals(
        all in interleaved(prop::collection::vec(message(0..1), 1..40), true),
        pieces in pieces(),
        share in prop_oneof![Just(1.0), Just(0.5), Just(0.05)],
        seed in any::<u64>(),
    ) {
        run(check_requests(all, pieces, share, seed));
    }

    #[test]
    fn every_answer_was_there_with_the_write_of_its_end(
        all in interleaved(prop::collection::vec(message(0..1), 1..20), false),
        pieces in pieces(),
        seed in any::<u64>(),
    ) {
        let mut requests: Vec<u32> = all.places.iter().map(|it| it.stream).collect();
        requests.sort_unstable();
        run(check_replies(requests, all, pieces, seed));
    }

    #[test]
    fn every_try_has_its_own_write_and_its_own_answer(
        requests in interleaved(prop::collection::vec(message(0..1), 12), true),
        answers in interleaved(prop::collection::vec(message(0..3), 12), false),
        pieces in pieces(),
        seed in any::<u64>(),
    ) {
        run(check_exchanges(requests, answers, pieces, seed));
    }
}
