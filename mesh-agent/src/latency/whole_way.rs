//! Which of the measured requests have all the stamps that there are, and are remembered one by one.
//!
//! When a request left is one stamp. Those of the rest of its way are a message of the kernel's each, and a look at an
//! error queue; remembering it writes to memory that nobody has used for long. Together that is a third of what a request
//! costs, and of thousands in a second nobody looks at each. So on each thread one in two milliseconds has all, on average:
//! every one where there are few, also of some that come at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use super::pace::Pace;

/// On one thread; as many at once as may come together and then none for long.
const PACE: Pace = Pace {
    every: Duration::from_millis(2),
    at_once: 256,
};

thread_local! {
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether it is the turn of the request that begins `now`.
pub fn is_turn(now: Instant) -> bool {
    let mut next = NEXT.get();
    let is_turn = PACE.take(&mut next, now);
    NEXT.set(next);
    is_turn
}
