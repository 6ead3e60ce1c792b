//! The calls that count for the shares of a breaker.

use std::time::{Duration, Instant};

use crate::policy::sliding_window::SlidingWindow;

/// How far back calls count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Window {
    /// So long, and up to a tenth longer.
    Time(Duration),
    /// The last so many: 1 to 10000.
    Calls(u32),
}

/// The calls within a window.
#[derive(Debug)]
pub(super) struct Calls {
    window: Window,
    kept: Kept,
}

#[derive(Debug)]
enum Kept {
    Time(Box<[SlidingWindow; 2]>),
    Last(Last),
}

/// Calls, and which of them were what.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) all: u32,
    pub(super) failed: u32,
    pub(super) slow: u32,
}

/// The last calls: two bits for each, so that 10,000 of them fit into 2,500 bytes.
#[derive(Debug, Default)]
struct Last {
    bits: Box<[u8]>,
    /// Where the next one goes.
    next: u32,
    counts: Counts,
}

const FAILED: u8 = 1;
const SLOW: u8 = 2;

impl Calls {
    pub(super) fn new(window: Window) -> Self {
        let kept = match window {
            Window::Time(length) => Kept::Time(Box::new([SlidingWindow::new(length); 2])),
            Window::Calls(most) => Kept::Last(Last {
                bits: vec![0; most.div_ceil(4) as usize].into(),
                ..Last::default()
            }),
        };
        Self { window, kept }
    }

    pub(super) const fn window(&self) -> Window {
        self.window
    }

    pub(super) fn add(&mut self, is_failure: bool, is_slow: bool, now: Instant) {
        match (&mut self.kept, self.window) {
            (Kept::Time(windows), _) => {
                let [failed, slow] = &mut **windows;
                failed.add(is_failure, now);
                slow.add(is_slow, now);
            }
            (Kept::Last(last), Window::Calls(most)) => last.add(is_failure, is_slow, most),
            (Kept::Last(_), Window::Time(_)) => {}
        }
    }

    /// What it takes, but for itself.
    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        match &self.kept {
            Kept::Time(windows) => size_of_val(&**windows),
            Kept::Last(last) => last.bits.len(),
        }
    }

    pub(super) fn counts(&mut self, now: Instant) -> Counts {
        match &mut self.kept {
            Kept::Time(windows) => {
                let [failed, slow] = &mut **windows;
                let (failed, slow) = (failed.counts(now), slow.counts(now));
                Counts {
                    all: failed.all,
                    failed: failed.bad,
                    slow: slow.bad,
                }
            }
            Kept::Last(last) => last.counts,
        }
    }
}

impl Last {
    fn add(&mut self, is_failure: bool, is_slow: bool, most: u32) {
        let (byte, shift) = ((self.next / 4) as usize, self.next % 4 * 2);
        let Some(place) = self.bits.get_mut(byte) else {
            return;
        };
        let counts = &mut self.counts;
        if counts.all == most {
            let old = *place >> shift;
            counts.failed -= u32::from(old & FAILED != 0);
            counts.slow -= u32::from(old & SLOW != 0);
        } else {
            counts.all += 1;
        }
        let new = (FAILED * u8::from(is_failure)) | (SLOW * u8::from(is_slow));
        *place = (*place & !(3 << shift)) | (new << shift);
        counts.failed += u32::from(is_failure);
        counts.slow += u32::from(is_slow);
        self.next = (self.next + 1) % most;
    }
}
