//! Streams that one side resets.

use super::*;

fn reset(stream: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 4, 3, 0];
    bytes.extend(stream.to_be_bytes());
    // CANCEL.
    bytes.extend(8_u32.to_be_bytes());
    bytes
}

struct Resets {
    book: Arc<Book>,
    connection: Connection,
}

impl Resets {
    /// Requests come on these streams, and are all measured.
    async fn new(streams: &[u32]) -> Self {
        let book = book(1.0);
        let stamps = StreamStamps::of_client(Arc::clone(&book), &Sampler::default());
        let mut connection = Connection::new(stamps, 1).await;
        for stream in streams {
            connection.receive(&Message::head(*stream).bytes()).await;
        }
        Self { book, connection }
    }

    /// The answer to the request on `stream` has come from its server.
    fn answered(&self, stream: u32) {
        let stamps = &self.connection.stamps;
        assert!(stamps.is_for(stream, &Sampler::default(), Instant::now()));
        let path = format!("/{stream}");
        let measured = Measured::of_stream(&self.book, stamps, stream, &path);
        Box::new(measured).ended();
    }

    fn is_watched(&self, stream: u32) -> bool {
        self.connection.stamps.received(stream).is_some()
    }

    /// All that waits is written, and its stamps are taken.
    fn finish(&mut self) {
        self.connection.flush(usize::MAX);
        self.connection
            .stamps
            .finish(&self.connection.stream, false);
    }

    fn told(&self) -> Vec<String> {
        let traces = self.book.traces(usize::MAX, |_| true);
        let mut told: Vec<String> = traces.iter().map(|it| it.path.to_string()).collect();
        told.sort();
        told
    }

    fn asks_nothing(&self) -> bool {
        let stamps = &self.connection.stamps;
        stamps.leg().asked_nothing() && !stamps.is_watching.load(Ordering::Relaxed)
    }
}

#[test]
fn a_request_that_its_client_cancels_is_forgotten_and_the_others_are_not() {
    run(async {
        let mut resets = Resets::new(&[1, 3, 5, 7]).await;
        for stream in [1, 3, 7] {
            resets.answered(stream);
        }
        // 5 before its answer, 3 when its answer waits, 7 when the end of that has been written.
        resets.connection.write(&Message::head(7).bytes());
        resets.connection.flush(usize::MAX);
        for stream in [3, 5, 7] {
            resets.connection.receive(&reset(stream)).await;
        }
        assert_eq!(
            [1, 3, 5, 7].map(|stream| resets.is_watched(stream)),
            [true, false, false, true]
        );
        assert_eq!(
            resets.book.counts().unfinished,
            1,
            "the one whose answer waited"
        );
        resets.connection.write(&Message::head(1).bytes());
        resets.finish();
        assert_eq!(resets.told(), ["/1", "/7"]);
        assert!(resets.asks_nothing());
    });
}

#[test]
fn stamps_are_not_asked_for_an_end_that_is_not_written_any_more() {
    run(async {
        let mut resets = Resets::new(&[1]).await;
        resets.answered(1);
        resets.connection.write(&Message::head(1).bytes());
        assert!(!resets.asks_nothing());
        resets.connection.receive(&reset(1)).await;
        assert!(resets.asks_nothing());
    });
}

#[test]
fn an_answer_that_ends_before_its_request_is_told_though_the_request_is_stopped() {
    run(async {
        let mut resets = Resets::new(&[1, 3]).await;
        resets.answered(1);
        let mut bytes = Message::head(1).bytes();
        bytes.extend(reset(1));
        // The other one is refused.
        bytes.extend(reset(3));
        resets.connection.write(&bytes);
        assert!(resets.is_watched(1) && !resets.is_watched(3));
        resets.finish();
        assert_eq!(resets.told(), ["/1"]);
        assert!(resets.asks_nothing());
    });
}

/// What a server resets, who has asked it forgets: what it has said before is still asked for.
#[test]
fn an_answer_is_known_though_its_server_resets_the_stream_after_it() {
    run(async {
        let mut connection = Connection::new(StreamStamps::default(), 1).await;
        for (stream, is_ended) in [(1, true), (3, false)] {
            connection.stamps.watch(stream, true);
            connection.write(&Message::head(stream).bytes());
            connection.flush(usize::MAX);
            let mut bytes = Message::head(stream).bytes();
            if !is_ended {
                // Without END_STREAM: the reset is the end, as some servers have it.
                bytes[4] &= !1;
            }
            bytes.extend(reset(stream));
            connection.receive(&bytes).await;
            assert!(connection.stamps.heard(stream).first.is_some());
            assert!(connection.stamps.end_of_answer(stream).0.is_some());
        }
    });
}
