//! Which of the measured requests have all the stamps that there are, and are remembered one by one.
//!
//! When a request left is one stamp. Those of the rest of its way are a message of the kernel's each, and a look at an
//! error queue; remembering it writes to memory that nobody has used for long. Together that is a third of what a request
//! costs, and of thousands in a second nobody looks at each. So on each thread one in a millisecond has all, on average:
//! every one where there are few, also of some that come at once.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

/// How often, on average on one thread.
const OFTEN: Duration = Duration::from_millis(1);
/// So many at once, after a time without any.
const AT_ONCE: u32 = 256;

thread_local! {
    /// When it is the next one's turn, if they come evenly (the generic cell rate algorithm, ITU-T I.371).
    static NEXT: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// Whether it is the turn of the request that begins `now`.
pub fn is_turn(now: Instant) -> bool {
    let next = NEXT.get().map_or(now, |next| next.max(now));
    let is_turn = next - now < OFTEN * AT_ONCE;
    if is_turn {
        NEXT.set(Some(next + OFTEN));
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
        let many = (0..100_000).filter(|number| is_turn(at(number * 25)));
        assert_eq!(many.count(), 2_500 + AT_ONCE as usize);
        let few = (10_000..10_050).filter(|number| is_turn(at(number * 1_000)));
        assert_eq!(few.count(), 50);
        let at_once = (0..1_000).filter(|_| is_turn(at(20_000_000)));
        assert_eq!(at_once.count(), AT_ONCE as usize);
    }
}
