//! A client's pipelined requests come over a real connection in any pieces, and their answers go out in any: what is
//! said of each is what offsets in the bytes say.

mod requests;

use std::{
    future::poll_fn,
    io::{self, Write as _},
    pin::Pin,
    sync::{Arc, atomic::Ordering},
    task::Poll,
};

use proptest::prelude::*;
use rand::{SeedableRng as _, rngs::SmallRng};
use tokio::{
    io::{AsyncRead as _, AsyncWrite as _, ReadBuf},
    runtime::Builder,
    task::yield_now,
};

use super::*;
use crate::{
    latency::{Book, Source, Unclear, loopback},
    proxy::{
        connection::Moved,
        http::{
            counted_io::CountedIo,
            half_close::{Busy, Underway},
            interim::Interim,
            strict_io::{Refusal, StrictIo},
        },
    },
};
use requests::{Request, pipelined};

/// More than is ever under way at once: a read takes all that has come.
const ROOM: usize = 64 << 10;
/// Steps without end are a connection that does not go on.
const MOST_STEPS: usize = 100_000;

/// One look at the connection that took bytes.
struct Read {
    /// Offset after the last.
    end: usize,
    /// If anybody wanted that.
    arrival: Option<Arrival>,
}

/// From when to when something was done.
#[derive(Clone, Copy, Debug)]
struct During {
    from: Nanos,
    to: Nanos,
}

impl During {
    const fn has(self, at: Nanos) -> bool {
        self.from.0 <= at.0 && at.0 <= self.to.0
    }
}

fn during<T>(act: impl FnOnce() -> T) -> (During, T) {
    let from = Nanos::now();
    let done = act();
    let to = Nanos::now();
    (During { from, to }, done)
}

/// How the request that is under way is answered.
struct Answering {
    underway: Option<Underway>,
    measured: Option<Box<Measured>>,
    /// Writes until its end is known, and after.
    before: usize,
    after: usize,
    has_ended: bool,
    /// All stamps are wanted.
    is_whole: bool,
}

/// What was written of an answer that is measured.
struct Replied {
    number: usize,
    is_early: bool,
    is_whole: bool,
    /// The last of it, and when that was all.
    write: Option<During>,
    flush: Option<During>,
}

/// A client's connection, as the HTTP library uses it, and what is to be said of its requests.
struct Connection {
    requests: Vec<Request>,
    receipts: Arc<Receipts>,
    book: Arc<Book>,
    io: StrictIo,
    busy: Busy,
    moved: Arc<Moved>,
    peer: std::net::TcpStream,
    buffer: Vec<u8>,
    random: SmallRng,
    /// Each request is to be measured, or chance says which.
    wants_all: bool,
    is_wanted: bool,
    /// Bytes that the library has.
    given: usize,
    reads: Vec<Read>,
    /// Those that were begun with, and those that were answered.
    begun: usize,
    answered: usize,
    answering: Option<Answering>,
    /// Requests that had so many behind them that they may be forgotten.
    crowded: usize,
    /// When the answer before was written, and how much had been read by then.
    flushed: Option<(During, usize)>,
    replied: Vec<Replied>,
    /// Writes with stamps.
    stamped: u64,
}

impl Connection {
    async fn new(requests: Vec<Request>, wants_all: bool, seed: u64) -> io::Result<Self> {
        let (peer, stream) = loopback::pair().await?;
        let peer = peer.into_std()?;
        peer.set_nonblocking(false)?;
        let receipts = Arc::<Receipts>::default();
        let moved = Arc::<Moved>::default();
        let busy = Busy::default();
        let stream = StampedStream::new(stream, Arc::clone(receipts.leg()));
        let io = StrictIo::new(
            CountedIo::new(stream, Arc::clone(&moved)),
            Arc::<Refusal>::default(),
            Arc::<Interim>::default(),
            busy.clone(),
            Arc::clone(&receipts),
        );
        let mut connection = Self {
            requests,
            receipts,
            book: Arc::default(),
            io,
            busy,
            moved,
            peer,
            buffer: vec![0; ROOM],
            random: SmallRng::seed_from_u64(seed),
            wants_all,
            is_wanted: false,
            given: 0,
            reads: Vec::new(),
            begun: 0,
            answered: 0,
            answering: None,
            crowded: 0,
            flushed: None,
            replied: Vec::new(),
            stamped: 0,
        };
        connection.want_next();
        Ok(connection)
    }

    fn want_next(&mut self) {
        self.is_wanted = self.wants_all || self.random.random();
        self.receipts.want(self.is_wanted);
    }

    /// How many bytes were taken from the socket.
    fn taken(&self) -> usize {
        self.reads.last().map_or(0, |read| read.end)
    }

    /// When the byte at `offset` came, if it has and anybody wanted to know.
    fn arrival(&self, offset: usize) -> Option<Arrival> {
        let read = self.reads.iter().find(|read| read.end > offset)?;
        read.arrival
    }

    fn first_of(&self, number: usize) -> Option<Arrival> {
        self.arrival(self.requests[number].begin)
    }

    fn last_of(&self, number: usize) -> Option<Arrival> {
        self.arrival(self.requests[number].end - 1)
    }

    /// The library reads: one read of the socket at most.
    async fn read(&mut self) {
        // So that the runtime hears of what came.
        yield_now().await;
        let is_receiving = self.receipts.leg().is_receiving();
        let before = self.taken();
        let mut buffer = ReadBuf::new(&mut self.buffer);
        let io = &mut self.io;
        poll_fn(|context| {
            let read = Pin::new(&mut *io).poll_read(context, &mut buffer);
            assert!(!matches!(read, Poll::Ready(Err(_))), "{read:?}");
            Poll::Ready(())
        })
        .await;
        self.given += buffer.filled().len();
        let end = self.moved.sent.load(Ordering::Relaxed) as usize;
        if end > before {
            let arrival = self.receipts.leg().last_arrival();
            self.reads.push(Read {
                end,
                arrival: arrival.filter(|_| is_receiving),
            });
            let whole = self.requests.partition_point(|it| it.head_end <= end);
            self.crowded = self.crowded.max(whole.saturating_sub(MOST));
        }
    }

    /// The library begins with the next request.
    fn begin(&mut self) {
        let number = self.begun;
        self.begun += 1;
        let underway = self.busy.begin();
        let begun = self.receipts.begin(false);
        assert!(self.taken() >= self.requests[number].head_end);
        let known = self.first_of(number);
        match (known, begun) {
            (Some(first), Some((found, turn))) => {
                assert!(self.is_wanted, "nobody wanted it");
                assert_eq!(found, number as u64 + 1);
                self.check_turn(number, first, turn);
            }
            (None, Some(_)) => panic!("nobody knows when it came"),
            (Some(_), None) => assert!(
                !self.is_wanted || number < self.crowded,
                "{number} was forgotten"
            ),
            (None, None) => assert!(!self.wants_all),
        }
        self.want_next();
        self.check_looks();
        let is_whole = self.random.random();
        let measured = begun.map(|(found, _)| {
            let path = format!("/{number}");
            Box::new(Measured::of_request(
                &self.book,
                &self.receipts,
                found,
                &path,
                is_whole,
            ))
        });
        self.answering = Some(Answering {
            underway: Some(underway),
            measured,
            before: self.random.random_range(0..3),
            after: self.random.random_range(1..3),
            has_ended: false,
            is_whole,
        });
    }

    /// A request had to wait for the answer before it if it had come by then.
    fn check_turn(&self, number: usize, first: Arrival, turn: Option<Nanos>) {
        let Some((flush, taken)) = self.flushed else {
            assert_eq!(turn, None, "there was no answer before it");
            return;
        };
        if self.requests[number].begin < taken {
            assert!(turn.is_some(), "it was there before the answer");
        }
        if let Some(turn) = turn {
            assert!(
                flush.has(turn),
                "it is not when the answer before was written"
            );
            assert!(turn > first.stamp.at);
        }
    }

    /// Nobody is ever given another one's arrival.
    fn check_looks(&self) {
        for number in 0..self.requests.len() {
            let looked = self.receipts.look(number as u64 + 1);
            let first = self.first_of(number);
            if let Some(looked) = looked {
                let last = self.last_of(number);
                assert_eq!(Some(looked.0), first, "first byte of {number}");
                assert_eq!(looked.1, last, "last byte of {number}");
            }
            let is_underway = self.answering.as_ref().is_some_and(|it| !it.has_ended);
            if is_underway && number + 1 == self.begun && number >= self.crowded {
                assert_eq!(looked.is_some(), first.is_some(), "{number} was forgotten");
            }
        }
        let is_coming = (0..self.requests.len())
            .any(|it| self.first_of(it).is_some() && self.taken() < self.requests[it].end);
        assert_eq!(
            self.receipts.leg().is_receiving(),
            self.is_wanted || is_coming,
            "stamps are asked for as long as somebody wants them"
        );
    }

    async fn write(&mut self) -> During {
        let bytes = vec![b'a'; self.random.random_range(1..200)];
        let is_asked = !self.receipts.leg().asked_nothing();
        self.stamped += u64::from(is_asked);
        // What is not acknowledged could hold up what is written.
        loopback::take(&self.peer).expect("it is closed");
        let io = &mut self.io;
        poll_fn(|context| {
            let (write, count) = during(|| Pin::new(&mut *io).poll_write(context, &bytes));
            assert!(matches!(count, Poll::Ready(Ok(count)) if count == bytes.len()));
            Poll::Ready(write)
        })
        .await
    }

    async fn flush(&mut self) -> During {
        let io = &mut self.io;
        let flush = poll_fn(|context| {
            let (flush, flushed) = during(|| Pin::new(&mut *io).poll_flush(context));
            assert!(matches!(flushed, Poll::Ready(Ok(()))));
            Poll::Ready(flush)
        })
        .await;
        self.flushed = Some((flush, self.taken()));
        flush
    }

    /// The answer goes on.
    async fn answer(&mut self) {
        let number = self.begun - 1;
        let is_first = self.random.random();
        let mut answering = self.answering.take().expect("nothing is under way");
        if answering.before > 0 {
            answering.before -= 1;
            self.write().await;
            if is_first {
                self.flush().await;
            }
        } else if !answering.has_ended {
            answering.has_ended = true;
            if let Some(measured) = answering.measured.take() {
                let is_early = self.taken() < self.requests[number].end;
                measured.ended();
                self.replied.push(Replied {
                    number,
                    is_early,
                    is_whole: answering.is_whole,
                    write: None,
                    flush: None,
                });
            }
        } else if answering.after > 0 {
            answering.after -= 1;
            let write = self.write().await;
            if let Some(replied) = self.reply_to(number) {
                replied.write = Some(write);
            }
        } else {
            // The library lets go of the body before it flushes, or after.
            if is_first {
                drop(answering.underway.take());
                self.read().await;
            }
            let flush = self.flush().await;
            self.answered += 1;
            if let Some(replied) = self.reply_to(number) {
                replied.flush = Some(flush);
            }
            return;
        }
        self.answering = Some(answering);
    }

    fn reply_to(&mut self, number: usize) -> Option<&mut Replied> {
        self.replied.last_mut().filter(|it| it.number == number)
    }

    /// Does what there is to do, in any order that is possible.
    async fn run(&mut self, pieces: &[usize]) {
        let text: String = self.requests.iter().map(|it| &*it.text).collect();
        let mut left = text.as_bytes();
        let mut pieces = pieces.iter().copied().cycle();
        for _ in 0..MOST_STEPS {
            if self.answered == self.requests.len() {
                return;
            }
            match self.random.random_range(0..3) {
                0 if !left.is_empty() => {
                    let count = pieces.next().map_or(1, |it| it.min(left.len()));
                    self.peer.write_all(&left[..count]).expect("nobody reads");
                    left = &left[count..];
                }
                1 if self.answering.is_some() => self.answer().await,
                1 if self.given >= self.requests[self.begun].head_end => self.begin(),
                _ => self.read().await,
            }
            self.check_looks();
        }
        panic!("it does not come to its end");
    }

    /// What was told of answers in the end.
    async fn check_replies(&mut self) {
        // The last stamp may have come late.
        self.read().await;
        let traces = self.book.traces(usize::MAX, |_| true);
        assert_eq!(traces.len(), self.replied.len());
        for (trace, replied) in traces.iter().rev().zip(&self.replied) {
            let number = replied.number;
            let way = &trace.way;
            assert_eq!(trace.path.to_string(), format!("/{number}"));
            assert_eq!(Some(way.received_first), self.first_of(number));
            if replied.is_early {
                assert_eq!(trace.outcome.stages, Err(Unclear::Overlapping));
                continue;
            }
            assert_eq!(Some(way.received_last), self.last_of(number));
            let (Some(write), Some(flush)) = (replied.write, replied.flush) else {
                panic!("answer {number} was not written");
            };
            if replied.is_whole {
                assert!(write.has(way.answer_written), "end of answer {number}");
                assert_eq!(way.replied.source, Source::Software);
                assert!(write.from <= way.replied.at);
                assert!(way.replied.at <= flush.to);
            } else {
                assert!(flush.has(way.answer_written), "end of answer {number}");
                assert_eq!(way.replied.source, Source::Clock);
            }
        }
        let told = self.book.counts().stamps;
        let left = self.receipts.leg().take_counts();
        assert_eq!(told.matched + left.matched, self.stamped);
        assert_eq!(told.unmatched + left.unmatched, 0);
    }
}

/// Which of them were measured to the end.
fn check(requests: Vec<Request>, pieces: &[usize], wants_all: bool, seed: u64) -> Vec<usize> {
    let runtime = Builder::new_current_thread().enable_all().build();
    runtime.expect("no runtime").block_on(async {
        let connection = Connection::new(requests, wants_all, seed).await;
        let mut connection = connection.expect("no connection");
        connection.run(pieces).await;
        connection.check_replies().await;
        connection.replied.iter().map(|it| it.number).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    /// However requests are cut, pipelined and chosen.
    #[test]
    fn every_request_has_its_own_stamps(
        requests in pipelined(1..12),
        pieces in prop::collection::vec(prop_oneof![1..20_usize, 1..400_usize, Just(ROOM / 8)], 1..20),
        wants_all in any::<bool>(),
        seed in any::<u64>(),
    ) {
        check(requests, &pieces, wants_all, seed);
    }
}

#[test]
fn of_more_requests_than_are_remembered_the_last_are_measured() {
    let text = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let request = |number| Request {
        text: text.into(),
        begin: number * text.len(),
        head_end: (number + 1) * text.len(),
        end: (number + 1) * text.len(),
    };
    let requests: Vec<Request> = (0..100).map(request).collect();
    let measured = check(requests, &[ROOM / 8], true, 1);
    let remembered: Vec<usize> = (100 - MOST..100).collect();
    assert_eq!(measured, remembered);
}
