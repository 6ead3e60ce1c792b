//! How many tries beyond the first may be under way at once: one budget for retries and hedges.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

/// What the budget allows: as in Envoy, a share of the requests under way, and some in any case.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BudgetLimits {
    /// Share of the active requests, from 0 to 1.
    pub ratio: f64,
    /// So many in any case.
    pub floor: u32,
}

impl BudgetLimits {
    /// The most tries beyond the first while `active` requests are under way.
    fn most(self, active: u32) -> u32 {
        // Cut off towards zero; `as` saturates.
        ((f64::from(active) * self.ratio) as u32).max(self.floor)
    }
}

/// The requests of one destination and their further tries. Shared by all of its requests.
#[derive(Debug, Default)]
pub struct RetryBudget {
    active: AtomicU32,
    further: AtomicU32,
}

impl RetryBudget {
    /// A request begins; it counts until what is returned is dropped.
    pub fn begin(self: &Arc<Self>) -> ActiveRequest {
        self.active.fetch_add(1, Ordering::Relaxed);
        ActiveRequest(Arc::clone(self))
    }

    /// Takes the place of one further try, which is held until what is returned is dropped. `None`
    /// if there is none.
    pub fn take(self: &Arc<Self>, limits: BudgetLimits) -> Option<FurtherTry> {
        let most = limits.most(self.active.load(Ordering::Relaxed));
        let taken = self
            .further
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |further| {
                (further < most).then_some(further + 1)
            });
        taken.ok().map(|_| FurtherTry(Arc::clone(self)))
    }

    /// Requests and further tries that are under way.
    pub fn under_way(&self) -> (u32, u32) {
        (
            self.active.load(Ordering::Relaxed),
            self.further.load(Ordering::Relaxed),
        )
    }
}

/// A request under way.
#[derive(Debug)]
pub struct ActiveRequest(Arc<RetryBudget>);

impl Drop for ActiveRequest {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A further try under way.
#[derive(Debug)]
pub struct FurtherTry(Arc<RetryBudget>);

impl Drop for FurtherTry {
    fn drop(&mut self) {
        self.0.further.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::atomic::AtomicBool, thread};

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Copy, Debug)]
    enum Event {
        Begin,
        End,
        Try,
        EndTry,
    }

    fn event() -> impl Strategy<Value = Event> {
        prop_oneof![
            Just(Event::Begin),
            Just(Event::End),
            Just(Event::Try),
            Just(Event::EndTry)
        ]
    }

    proptest! {
        #[test]
        fn it_is_given_out_to_the_limit_and_never_beyond(
            events in prop::collection::vec(event(), 1..300),
            ratio in 0.0..1.0_f64,
            floor in 0..5_u32,
        ) {
            let limits = BudgetLimits { ratio, floor };
            let budget = Arc::new(RetryBudget::default());
            let (mut active, mut further) = (Vec::new(), Vec::new());
            for event in events {
                match event {
                    Event::Begin => active.push(budget.begin()),
                    Event::End => drop(active.pop()),
                    Event::EndTry => drop(further.pop()),
                    Event::Try => {
                        let most = (active.len() as f64 * ratio).floor().max(f64::from(floor));
                        let fits = (further.len() as f64) < most;
                        let taken = budget.take(limits);
                        prop_assert_eq!(taken.is_some(), fits);
                        further.extend(taken);
                    }
                }
                prop_assert_eq!(budget.under_way(), (active.len() as u32, further.len() as u32));
            }
        }
    }

    #[test]
    fn many_threads_together_do_not_exceed_it() {
        const MOST: u32 = 3;
        let limits = BudgetLimits {
            ratio: 0.0,
            floor: MOST,
        };
        let budget = Arc::new(RetryBudget::default());
        let held = AtomicU32::new(0);
        let exceeded = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        let Some(further) = budget.take(limits) else {
                            continue;
                        };
                        if held.fetch_add(1, Ordering::SeqCst) >= MOST {
                            exceeded.store(true, Ordering::SeqCst);
                        }
                        held.fetch_sub(1, Ordering::SeqCst);
                        drop(further);
                    }
                });
            }
        });
        assert!(!exceeded.into_inner());
        assert_eq!(budget.under_way(), (0, 0));
    }
}
