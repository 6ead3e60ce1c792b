//! What the runtime is told of a connection that is stamped.

use std::{
    io::{Read as _, Write as _},
    iter,
    sync::Arc,
    task::Poll,
    thread,
    time::Duration,
};

use tokio::runtime::{Builder, Handle};

use super::*;

const ROUNDS: u64 = 300;

/// A stamp that comes wakes up the thread that has just written, if it is to be told of room to write.
#[test]
fn stamps_make_no_turns_of_the_event_loop() {
    // Signals of another test make some, too.
    let mut all = iter::repeat_with(turns_of_stamped_writes).take(50);
    // One for each byte that comes; with one for each stamp it would be twice as many.
    assert!(all.any(|turns| turns < ROUNDS * 3 / 2));
}

fn turns_of_stamped_writes() -> u64 {
    let counted = async move {
        let (mut stream, peer) = stamped().await;
        let mut peer = peer.into_std().unwrap();
        peer.set_nonblocking(false).unwrap();
        let peer = thread::spawn(move || {
            let mut byte = [0];
            while peer.read_exact(&mut byte).is_ok() {
                // So that who waits for it does.
                thread::sleep(Duration::from_micros(200));
                peer.write_all(&byte).unwrap();
            }
        });
        let leg = Arc::clone(stream.leg());
        let metrics = Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        for _ in 0..ROUNDS {
            leg.begin(false);
            leg.ask_way();
            stream.write_all(b"x").await.unwrap();
            leg.ask_nothing();
            stream.read_exact(&mut [0]).await.unwrap();
        }
        let turns = metrics.worker_park_count(0) - before;
        assert!(is_read_only(&stream));
        assert_eq!(leg.take_counts().matched, ROUNDS);
        (peer, turns)
    };
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let (peer, turns) = runtime.block_on(async { tokio::spawn(counted).await.unwrap() });
    peer.join().unwrap();
    turns
}

#[tokio::test]
async fn who_waits_to_read_is_told_though_the_socket_comes_to_be_watched_otherwise() {
    let (mut stream, mut peer) = stamped().await;
    for number in 0..4 {
        let mut byte = [0];
        let mut waiting = Box::pin(stream.read_exact(&mut byte));
        let pending = poll_fn(|context| Poll::Ready(waiting.as_mut().poll(context).is_pending()));
        assert!(pending.await);
        drop(waiting);
        stream.leg().begin(false);
        stream.leg().ask_way();
        stream.write_all(b"request").await.unwrap();
        assert_eq!(is_read_only(&stream), number >= 2, "{number}");
        let answer = tokio::spawn(async move {
            sleep(Duration::from_millis(5)).await;
            peer.write_all(b"a").await.unwrap();
            peer
        });
        read(&mut stream, 1).await;
        peer = answer.await.unwrap();
    }
    // And the end.
    drop(peer);
    let ended = timeout(LONG, stream.read_u8()).await.unwrap();
    assert!(ended.is_err());
}

#[tokio::test]
async fn who_waits_for_what_comes_stamped_has_the_socket_prepared_before_it_comes() {
    let (mut stream, _peer) = stamped().await;
    let mut byte = [0];
    let poll = async |stream: &mut StampedStream, byte: &mut [u8]| {
        let mut buffer = ReadBuf::new(byte);
        poll_fn(|context| {
            let polled = Pin::new(&mut *stream).poll_read(context, &mut buffer);
            Poll::Ready(polled.is_pending())
        })
        .await
    };
    assert!(poll(&mut stream, &mut byte).await);
    assert!(!stream.leg().is_prepared());
    stream.leg().set_receiving(true);
    assert!(poll(&mut stream, &mut byte).await);
    assert!(stream.leg().is_prepared());
}

#[tokio::test]
async fn after_a_read_that_had_room_for_more_the_next_waits() {
    for is_stamped in [false, true] {
        let (mut stream, mut peer) = stamped().await;
        stream.leg().set_receiving(is_stamped);
        for part in [&b"some"[..], b"more"] {
            peer.write_all(part).await.unwrap();
            poll_fn(|context| stream.poll_read_ready(context))
                .await
                .unwrap();
            let mut buffer = Vec::with_capacity(100);
            assert_eq!(stream.try_read_more(&mut buffer).unwrap(), part.len());
            assert!(!is_ready(&mut stream).await, "it would read for nothing");
        }
        // What was all there was room for may not have been all.
        peer.write_all(b"twice").await.unwrap();
        poll_fn(|context| stream.poll_read_ready(context))
            .await
            .unwrap();
        let mut buffer = Vec::with_capacity(8);
        buffer.extend(&b"12345678"[..buffer.capacity() - 2]);
        assert_eq!(stream.try_read_more(&mut buffer).unwrap(), 2);
        assert!(is_ready(&mut stream).await);
        // And the end is always told.
        drop(peer);
        let mut end = Vec::with_capacity(100);
        while stream.try_read_more(&mut end).is_ok_and(|count| count > 0) {}
        poll_fn(|context| stream.poll_read_ready(context))
            .await
            .unwrap();
        assert_eq!(stream.try_read_more(&mut end).unwrap(), 0);
    }
}

async fn is_ready(stream: &mut StampedStream) -> bool {
    poll_fn(|context| Poll::Ready(stream.poll_read_ready(context).is_ready())).await
}
