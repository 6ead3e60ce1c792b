//! Many streams at once.

use super::{super::watched::MOST, *};

/// The stream of the request with this number.
fn stream(number: usize) -> u32 {
    number as u32 * 2 + 1
}

#[test]
fn of_more_streams_than_are_watched_at_once_the_last_are() {
    run(async {
        let stamps = StreamStamps::of_client(book(1.0), Arc::default());
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
    let stamps = StreamStamps::of_client(book(share), Arc::default());
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
            if connection.stamps.is_for(stream, &Sampler::default()) {
                watched += 1;
                assert!(connection.stamps.received(stream).is_some());
                connection.stamps.forget(stream);
            }
        }
    }
    watched
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
