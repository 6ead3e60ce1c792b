//! What one side had sent before it was gone, on its way to the other.

use std::{
    pin::{Pin, pin},
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use tokio::{
    net::TcpStream,
    time::{sleep, timeout},
};

use super::direction::{Broken, pass_on_end};
use crate::pods;

/// How long a reader may take nothing of the last words of a peer that is gone.
const PATIENCE: Duration = Duration::from_secs(5);

/// How often to look whether the last words have arrived: at first, and at most.
const FIRST_LOOK: Duration = Duration::from_millis(1);
const LAST_LOOK: Duration = Duration::from_millis(100);

/// Delivers what the side that is gone had sent: what is still to be copied, if there is any, and
/// what waits in `target`'s send buffer, which a reset would throw away.
pub(super) async fn last_words(
    copying: Option<Pin<&mut impl Future<Output = Result<(), Broken>>>>,
    target: &TcpStream,
    copied: &AtomicU64,
    end_is_real: bool,
) {
    if let Some(copying) = copying {
        match while_it_moves(copying, || copied.load(Ordering::Relaxed)).await {
            Some(Ok(())) if end_is_real => pass_on_end(target),
            Some(Ok(()) | Err(Broken::Source)) => {}
            Some(Err(Broken::Target(_))) | None => return,
        }
    }
    let _given_up = while_it_moves(pin!(delivered(target)), || queued(target)).await;
}

/// Waits for `future` as long as `progress` changes; `None` if it does not for too long.
async fn while_it_moves<T, P: PartialEq>(
    mut future: Pin<&mut impl Future<Output = T>>,
    progress: impl Fn() -> P,
) -> Option<T> {
    let mut before = progress();
    loop {
        if let Ok(output) = timeout(PATIENCE, future.as_mut()).await {
            return Some(output);
        }
        let now = progress();
        if now == before {
            return None;
        }
        before = now;
    }
}

/// Resolves when the peer has acknowledged all that was written to it, or is gone.
pub(super) async fn delivered(stream: &TcpStream) {
    let mut look = FIRST_LOOK;
    while queued(stream) > 0 {
        sleep(look).await;
        look = (look * 2).min(LAST_LOOK);
    }
}

fn queued(stream: &TcpStream) -> u32 {
    pods::send_buffer(stream).map_or(0, |buffer| buffer.queued)
}
