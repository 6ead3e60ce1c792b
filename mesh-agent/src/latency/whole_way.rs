//! Which of the measured requests have all the stamps that there are, and are remembered one by one.
//!
//! When a request left is one stamp. Those of the rest of its way are a message of the kernel's each, and a look at an
//! error queue; remembering it writes to memory that nobody has used for long. Together that is a third of what a request
//! costs, and of thousands in a second nobody looks at each. So on each thread one in a millisecond has all: every one
//! where there are few.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often at most, on one thread.
const OFTEN: Duration = Duration::from_millis(1);

thread_local! {
    /// When it was the last one's turn.
    static LAST: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether it is the turn of the request that begins `now`.
pub fn is_turn(now: Instant) -> bool {
    let last = LAST.get();
    let is_turn = last.is_none_or(|last| now.saturating_duration_since(last) >= OFTEN);
    if is_turn {
        LAST.set(Some(now));
    }
    is_turn
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_in_a_millisecond_has_all_stamps_and_every_one_of_few() {
        let begin = Instant::now();
        let at = |micros| begin + Duration::from_micros(micros);
        let many = (0..10_000).filter(|number| is_turn(at(number * 25)));
        assert_eq!(many.count(), 250);
        let few = (1_000..1_050).filter(|number| is_turn(at(number * 1_000)));
        assert_eq!(few.count(), 50);
    }
}
