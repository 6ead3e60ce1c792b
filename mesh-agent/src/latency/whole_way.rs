//! Which of the measured requests have all the stamps that there are, and are remembered one by one.
//!
//! When a request left is one stamp. Those of the rest of its way are a message of the kernel's each, and a look at an
//! error queue; remembering it writes to memory that nobody has used for long. Together that is a third of what a request
//! costs, and of thousands in a second nobody looks at each. So on each thread one in a millisecond has all: every one
//! where there are few.

use std::{cell::Cell, time::Duration};

use super::clock::Nanos;

/// How often at most, on one thread.
const OFTEN: Duration = Duration::from_millis(1);

thread_local! {
    /// When it was the last one's turn.
    static LAST: Cell<Nanos> = const { Cell::new(Nanos(0)) };
}

/// Whether it is the turn of the request that begins `now`.
pub fn is_turn(now: Nanos) -> bool {
    let last = LAST.get();
    // The clock may have been set.
    let is_turn = now.after(last) >= OFTEN || last > now;
    if is_turn {
        LAST.set(now);
    }
    is_turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_millisecond_has_all_stamps_and_every_one_of_few() {
        let begin = 1_000_000_000_000;
        let many = (0..10_000).filter(|at| is_turn(Nanos(begin + at * 25_000)));
        assert_eq!(many.count(), 250);
        let few = (0..50).filter(|at| is_turn(Nanos(2 * begin + at * 1_000_000)));
        assert_eq!(few.count(), 50);
        assert!(is_turn(Nanos(begin)), "the clock was set back");
    }
}
