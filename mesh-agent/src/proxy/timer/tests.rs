use std::{
    future::pending,
    io::{Read as _, Write as _},
    iter,
    net::TcpListener,
    thread,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    runtime::Handle,
    sync::oneshot,
};

use super::*;
use crate::proxy::workers::on_another;

fn after(left: Duration) -> Deadline {
    Deadline::NONE.within(Some(left), Instant::now())
}

fn millis(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn kept() -> usize {
    KEPT.with_borrow(Vec::len)
}

/// After how long nothing is late.
async fn late(deadline: Deadline) -> Duration {
    let begun = Instant::now();
    assert_eq!(within(deadline, pin!(pending::<()>())).await, Err(Late));
    begun.elapsed()
}

#[tokio::test]
async fn what_came_while_the_thread_was_held_up_is_in_time() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let mut client = TcpStream::connect(listener.local_addr().unwrap())
        .await
        .unwrap();
    let (mut server, _) = listener.accept().unwrap();
    let (sender, receiver) = oneshot::channel();
    // As the task of a connection to a server.
    tokio::spawn(async move {
        let mut byte = [0];
        client.read_exact(&mut byte).await.unwrap();
        sender.send(byte[0]).unwrap();
    });
    yield_now().await;
    let held_up = async {
        server.write_all(b"a").unwrap();
        thread::sleep(millis(60));
        receiver.await.unwrap()
    };
    assert_eq!(within(after(millis(20)), pin!(held_up)).await, Ok(b'a'));
}

#[tokio::test]
async fn what_comes_in_time_is_there_and_what_does_not_is_late() {
    assert_eq!(within(Deadline::NONE, pin!(async { 1 })).await, Ok(1));
    // Also if the time is over already.
    assert_eq!(
        within(after(Duration::ZERO), pin!(async { 2 })).await,
        Ok(2)
    );
    assert_eq!(
        within(
            after(millis(10_000)),
            pin!(async {
                yield_now().await;
                3
            })
        )
        .await,
        Ok(3)
    );
    assert!(late(after(millis(20))).await >= millis(20));
    assert_eq!(kept(), 0, "it is no worker's");
}

#[test]
fn a_timer_that_was_set_for_another_goes_off_neither_early_nor_late() {
    on_another(async {
        for (set_for, wanted) in [(120, 160), (10_000, 40), (130, 130), (20, 60), (0, 20)] {
            let yielding = async {
                yield_now().await;
                // It may have gone off already.
                thread::sleep(millis(2));
            };
            assert_eq!(
                within(after(millis(set_for + 1)), pin!(yielding)).await,
                Ok(())
            );
            let took = late(after(millis(wanted))).await;
            assert!(took >= millis(wanted), "{took:?} of {wanted} ms");
            assert!(took < millis(wanted + 2_000), "{took:?} of {wanted} ms");
        }
    });
}

#[test]
fn who_is_put_off_is_not_late_before() {
    on_another(async {
        let begun = Instant::now();
        let mut timer = Timer::new((begun + millis(5)).into());
        poll_fn(|context| {
            assert!(timer.poll(context).is_pending());
            Poll::Ready(())
        })
        .await;
        timer.reset((begun + millis(50)).into());
        poll_fn(|context| timer.poll(context)).await;
        assert!(begun.elapsed() >= millis(50));
        timer.reset((begun + millis(70)).into());
        poll_fn(|context| timer.poll(context)).await;
        assert!(begun.elapsed() >= millis(70));
    });
}

#[test]
fn few_are_kept_and_none_that_has_gone_off() {
    on_another(async {
        let mut timers: Vec<_> = (0..MOST_KEPT + 10)
            .map(|_| Timer::new((Instant::now() + millis(10_000)).into()))
            .collect();
        poll_fn(|context| {
            assert!(
                timers
                    .iter_mut()
                    .all(|timer| timer.poll(context).is_pending())
            );
            Poll::Ready(())
        })
        .await;
        assert_eq!(kept(), 0);
        drop(timers);
        assert_eq!(kept(), MOST_KEPT);
        late(after(millis(10))).await;
        assert_eq!(kept(), MOST_KEPT - 1);
    });
}

const ROUNDS: u64 = 300;

/// What it is for: a timer that is set for earlier than all others wakes the runtime up.
#[test]
fn setting_a_timer_makes_no_turn_of_the_event_loop() {
    // Signals of another test make some, too.
    let mut all = iter::repeat_with(turns_of_timed_reads).take(50);
    // One for each byte; with a timer of the runtime's one more for each round.
    assert!(all.any(|turns| turns < ROUNDS * 5 / 2));
}

fn turns_of_timed_reads() -> u64 {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let echo = thread::spawn(move || {
        let mut peer = listener.accept().unwrap().0;
        peer.set_nodelay(true).unwrap();
        let mut byte = [0];
        while peer.read(&mut byte).is_ok_and(|count| count > 0) {
            for _ in 0..2 {
                // So that who waits for it does.
                thread::sleep(Duration::from_micros(200));
                peer.write_all(&byte).unwrap();
            }
        }
    });
    let turns = on_another(async move {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let metrics = Handle::current().metrics();
        let before = metrics.worker_park_count(0);
        for _ in 0..ROUNDS {
            stream.write_all(b"x").await.unwrap();
            let answer = pin!(stream.read_u8());
            within(after(millis(15_000)), answer)
                .await
                .unwrap()
                .unwrap();
            // As for the next request, for which no timer is set.
            stream.read_u8().await.unwrap();
        }
        metrics.worker_park_count(0) - before
    });
    echo.join().unwrap();
    turns
}
