//! A request that is sent to another server before the first has failed.

use std::{net::SocketAddr, pin::pin, sync::Arc, time::Instant};

use super::Exchange;
use crate::{
    policy::{deadline::Deadline, hedge::HedgePolicy, retry_budget::FurtherTry},
    proxy::{
        destinations::{RequestCounters, Retries},
        http::running::{Ended, Running, first_of},
        protection::Refusal,
        timer::{Late, within},
    },
};

impl Exchange<'_> {
    /// Whether another try may be under way at the same time.
    pub(super) fn may_hedge(&self, retries: &Retries) -> bool {
        // To name a gRPC status is to say that such calls may be repeated.
        let is_repeatable = self.head.method.is_idempotent()
            || retries.policy.all_methods
            || self.is_grpc && retries.policy.looks_at_trailers();
        is_repeatable && !self.switch.is_wanted()
    }

    /// A try, and others beside it for as long as none is answered: the first that is no failure, or
    /// else the last.
    pub(super) async fn hedged(
        &mut self,
        hedge: HedgePolicy,
        retries: &Retries,
        tried: &mut Vec<SocketAddr>,
        place: Option<FurtherTry>,
    ) -> Result<Ended, Refusal> {
        let destination = self.destination;
        let counters = &destination.counters;
        let mut running = Vec::new();
        let begin = |exchange: &mut Self, tried: &[SocketAddr], place, slot, is_hedge| {
            let trying = exchange.begin_try(tried, place, slot)?;
            Ok::<_, Refusal>(Running {
                endpoint: Arc::clone(&trying.endpoint),
                begun: Instant::now(),
                is_hedge,
                trying: Box::pin(trying.run()),
            })
        };
        let slot = self.connection_slot().await?;
        running.push(begin(self, tried, place, slot, false)?);
        let mut left = hedge.max;
        loop {
            let now = Instant::now();
            let after = destination.hedge_after(hedge, now).filter(|_| left > 0);
            let until = Deadline::NONE.within(after, now);
            let ended = within(until, pin!(first_of(&mut running))).await;
            let (ended, answered) = match ended {
                Ok(ended) => ended,
                Err(Late) if !self.body.is_complete() => {
                    left = 0;
                    continue;
                }
                Err(Late) => {
                    let Some(place) = destination.budget.take(retries.budget) else {
                        RequestCounters::count(&counters.over_budget);
                        left = 0;
                        continue;
                    };
                    let Ok(slot) = self.free_slot() else {
                        left = 0;
                        continue;
                    };
                    tried.extend(running.iter().map(|running| running.endpoint.address));
                    // Where it cannot begin, those under way are not to suffer.
                    let Ok(hedge) = begin(self, tried, Some(place), slot, true) else {
                        left = 0;
                        continue;
                    };
                    left -= 1;
                    RequestCounters::count(&counters.retries);
                    RequestCounters::count(&counters.hedges);
                    running.push(hedge);
                    continue;
                }
            };
            let now = Instant::now();
            if answered.is_failure() && !running.is_empty() {
                destination.failed(&answered.endpoint, answered.took, now);
                continue;
            }
            if ended.is_hedge {
                RequestCounters::count(&counters.hedges_won);
            }
            // By the time that counts: the agent may have been late to read the answer.
            let came = ended.begun + answered.took;
            for late in running {
                // Nor was the connection's time the server's.
                let until = if came > late.begun { came } else { now };
                destination.given_up(&late.endpoint, until.duration_since(late.begun), now);
            }
            return Ok(answered);
        }
    }
}
