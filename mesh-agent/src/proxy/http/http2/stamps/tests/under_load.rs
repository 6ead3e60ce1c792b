//! Stamps that nobody takes: what waits in the error queue takes room from what is to be received.

use super::*;

fn end_of(stream: u32) -> Vec<u8> {
    let mut bytes = vec![0, 0, 0, 1, 1 | 4];
    bytes.extend(stream.to_be_bytes());
    bytes
}

/// The server reads nothing, the request's end waits, and its try is given up.
#[tokio::test]
async fn a_try_that_is_given_up_before_it_was_written_leaves_nothing_asked_for() {
    let mut connection = Connection::new(StreamStamps::default(), 1).await;
    connection.stamps.watch(1, true);
    connection.write(&end_of(1));
    assert!(!connection.stamps.leg().asked_nothing());
    connection.stamps.forget(1);
    for _ in 0..3 {
        connection.flush(usize::MAX);
        connection.write(&[0, 0, 1, 0, 0, 0, 0, 0, 3, 7]);
    }
    let asked_nothing = connection.stamps.leg().asked_nothing();
    let left = connection.stream.take_stamps();
    assert!(
        asked_nothing,
        "still asked for; {left} stamps waited in the error queue"
    );
}

/// What becomes of the connection then.
#[tokio::test]
async fn after_a_try_that_was_given_up_the_connection_goes_on() {
    let mut connection = Connection::new(StreamStamps::default(), 1).await;
    connection.stamps.watch(1, true);
    connection.write(&end_of(1));
    connection.stamps.forget(1);
    connection.flush(usize::MAX);
    for _ in 0..20_000 {
        connection.write(&[0, 0, 1, 0, 0, 0, 0, 0, 3, 7]);
        connection.flush(usize::MAX);
    }
    // Answers come.
    let mut sent = 0;
    let answer = vec![0_u8; 64 << 10];
    let mut taken = 0;
    let began = Instant::now();
    while taken < 1 << 20 && began.elapsed() < Duration::from_secs(10) {
        if let Ok(count) = connection.peer.try_write(&answer) {
            sent += count;
        }
        let mut buffer = Vec::with_capacity(64 << 10);
        if let Ok(count) = connection.stream.try_read_more(&mut buffer) {
            taken += count;
        }
        tokio::task::yield_now().await;
    }
    let took = began.elapsed();
    let left = connection.stream.take_stamps();
    eprintln!("sent {sent}, read {taken} in {took:?}; {left} stamps waited");
    assert!(taken >= 1 << 20);
}

/// As many requests under way at once as a server that takes long has.
#[tokio::test]
async fn of_many_requests_under_way_each_knows_its_write() {
    let mut connection = Connection::new(StreamStamps::default(), 1).await;
    let streams: Vec<u32> = (0..64).map(|it| 2 * it + 1).collect();
    for stream in &streams {
        connection.stamps.watch(*stream, true);
        connection.write(&end_of(*stream));
        connection.flush(usize::MAX);
    }
    connection.stream.take_stamps();
    let known = streams
        .iter()
        .filter(|it| connection.stamps.heard(**it).write.is_some());
    assert_eq!(known.count(), 64);
}

async fn slow_server(requests: u32, body: usize, is_whole: bool) -> usize {
    let mut connection = Connection::new(StreamStamps::default(), 1).await;
    let frame = |kind: u8, flags: u8, stream: u32, length: usize| {
        let mut bytes = (length as u32).to_be_bytes()[1..].to_vec();
        bytes.extend([kind, flags]);
        bytes.extend(stream.to_be_bytes());
        bytes.resize(9 + length, 7);
        bytes
    };
    // A long answer is under way.
    connection.stamps.watch(1, true);
    connection.write(&frame(1, 5, 1, 10));
    connection.flush(usize::MAX);
    connection.receive(&frame(1, 4, 1, 10)).await;
    // Requests that the server has not answered.
    for number in 1..=requests {
        let stream = 2 * number + 1;
        connection.stamps.watch(stream, is_whole);
        connection.write(&frame(1, 5, stream, 10));
        connection.flush(usize::MAX);
        tokio::time::sleep(Duration::from_micros(100)).await;
    }
    let mut all = Vec::new();
    while all.len() < body {
        all.extend(frame(0, 0, 1, 16_000));
    }
    for number in 1..=requests {
        all.extend(frame(1, 5, 2 * number + 1, 10));
    }
    let began = Instant::now();
    let (mut sent, mut taken) = (0, 0);
    while taken < all.len() && began.elapsed() < Duration::from_secs(5) {
        if let Ok(count) = connection.peer.try_write(&all[sent..]) {
            sent += count;
        }
        let mut buffer = Vec::with_capacity(64 << 10);
        if let Ok(count) = connection.stream.try_read_more(&mut buffer) {
            taken += count;
            connection
                .stamps
                .read(&mut connection.read, &buffer, &connection.stream);
        }
        tokio::task::yield_now().await;
    }
    all.len() - taken
}

#[tokio::test]
async fn stamps_of_many_requests_do_not_stop_a_slow_server() {
    for is_whole in [true, false] {
        for requests in [20, 40, 64, 100, 200, 250] {
            let left = slow_server(requests, 1 << 20, is_whole).await;
            assert_eq!(left, 0, "whole: {is_whole}, {requests} requests");
        }
    }
}
