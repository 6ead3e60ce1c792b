//! Many streams at once.

use super::{super::watched::MOST, *};

/// The stream of the request with this number.
fn stream(number: usize) -> u32 {
    number as u32 * 2 + 1
}

#[test]
fn of_more_streams_than_are_watched_at_once_the_last_are() {
    run(async {
        let stamps = StreamStamps::of_client(book(1.0), &Sampler::default());
        let mut connection = Connection::new(stamps, 1).await;
        for number in 0..MOST + 44 {
            let head = Message::head(stream(number));
            connection.receive(&head.bytes()).await;
        }
        for number in 0..MOST + 44 {
            let received = connection.stamps.received(stream(number));
            assert_eq!(received.is_some(), number >= 44, "{number}");
        }
    });
}

/// How many of `count` requests are watched, of which `at_once` come with each read.
async fn watched(share: f64, count: usize, at_once: usize) -> usize {
    let stamps = StreamStamps::of_client(book(share), &Sampler::default());
    let mut connection = Connection::new(stamps, 1).await;
    let mut watched = 0;
    for number in (0..count).step_by(at_once) {
        let streams = (number..number + at_once).map(stream);
        let bytes: Vec<u8> = streams
            .clone()
            .flat_map(|it| Message::head(it).bytes())
            .collect();
        connection.peer.write_all(&bytes).await.unwrap();
        let stream = &mut connection.stream;
        poll_fn(|context| stream.poll_read_ready(context))
            .await
            .unwrap();
        let mut buffer = Vec::with_capacity(bytes.len() + 1);
        let read = stream.try_read_more(&mut buffer).unwrap();
        assert_eq!(read, bytes.len());
        connection
            .stamps
            .read(&mut connection.read, &buffer, stream);
        for stream in streams {
            if connection
                .stamps
                .is_for(stream, &Sampler::default(), Instant::now())
            {
                watched += 1;
                assert!(connection.stamps.received(stream).is_some());
                connection.stamps.forget(stream);
            }
        }
    }
    watched
}

/// Requests go where their names say, not where the connection was meant for: the limits are those of where they go.
#[test]
fn each_destination_has_its_own_share_and_limit() {
    run(async {
        let book = book(0.02);
        let stamps = StreamStamps::of_client(Arc::clone(&book), &Sampler::default());
        let mut connection = Connection::new(stamps, 1).await;
        let samplers = [Sampler::default(), Sampler::default()];
        let mut measured = [0; 2];
        for number in 0..4_000 {
            let (stream, which) = (stream(number), number % 2);
            connection.receive(&Message::head(stream).bytes()).await;
            let stamps = &connection.stamps;
            let now = Instant::now();
            stamps.look(&samplers[which], now);
            if stamps.is_for(stream, &samplers[which], now) {
                measured[which] += 1;
                stamps.forget(stream);
            }
        }
        // Six standard deviations, and one in a second without any.
        assert!(
            measured.iter().all(|it| (3..85).contains(it)),
            "{measured:?}"
        );

        book.apply(
            Rate {
                share: 1.0,
                most_per_second: 10,
            },
            false,
        );
        // A second of its own.
        let begun = Instant::now() + Duration::from_secs(2);
        let mut measured = [0; 2];
        for number in 4_000..5_000 {
            let (stream, which) = (stream(number), number % 2);
            connection.receive(&Message::head(stream).bytes()).await;
            let stamps = &connection.stamps;
            stamps.look(&samplers[which], begun);
            if stamps.is_for(stream, &samplers[which], begun) {
                measured[which] += 1;
                stamps.forget(stream);
            }
        }
        assert!(
            measured.iter().all(|it| (1..=10).contains(it)),
            "{measured:?}"
        );
    });
}

/// A slow request, while others come and go on its connection.
#[test]
fn when_a_request_left_is_known_however_many_leave_after_it() {
    run(async {
        let mut connection = Connection::new(StreamStamps::default(), 1).await;
        for number in 0..400 {
            let stream = stream(number);
            connection.stamps.watch(stream, false);
            connection.write(&Message::head(stream).bytes());
            connection.flush(usize::MAX);
            connection.stream.take_stamps();
            if number > 0 {
                connection.stamps.forget(stream);
            }
        }
        let (end, from, to) = connection.writes[0];
        let write = connection.stamps.heard(stream(0)).write.unwrap();
        assert_eq!(write.end, end as u64);
        assert!((from..=to).contains(&write.written));
    });
}

#[test]
fn the_share_is_kept_however_many_come_at_once() {
    run(async {
        // Six standard deviations.
        for (share, at_once, expected) in [
            (0.02, 1, 20..160),
            (0.02, 10, 20..160),
            (0.5, 8, 1_810..2_190),
        ] {
            let watched = watched(share, 4_000, at_once).await;
            assert!(expected.contains(&watched), "{watched} of {share}");
        }
    });
}
