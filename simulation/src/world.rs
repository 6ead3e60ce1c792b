//! Clients, services and what happens between them, event by event.

use std::time::{Duration, Instant};

use mesh_agent::policy::{
    breaker::{BreakerLimits, Permit},
    priority::{Priority, user_priority},
    retry_budget::{ActiveRequest, FurtherTry},
};
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng};

use crate::{
    caller::{Caller, chance},
    events::{Answer, Event, Events},
    measure::Measured,
    scenario::{AFFECTED, SERVERS, SERVICE_TIME, SERVICES, Scenario, capacity},
    server::{Server, Taken},
    strategy::{self, Strategy, USEFUL},
};

/// Clients, and the nodes that they are on: the clients of a node share an agent.
const CLIENTS: u64 = 1000;
const NODES: usize = 10;
/// From a client to a server.
const WAY: Duration = Duration::from_micros(500);
/// Share of the requests that are critical.
const CRITICAL: f64 = 0.05;

/// Clients, services and what happens between them.
pub struct World {
    scenario: Scenario,
    strategy: Strategy,
    breaker: BreakerLimits,
    random: SmallRng,
    begin: Instant,
    now: Duration,
    events: Events,
    /// Of all services, one after the other.
    servers: Vec<Server>,
    was_down: Vec<bool>,
    /// Of all nodes, one after the other; each has one for each service.
    callers: Vec<Caller>,
    requests: Vec<Request>,
    attempts: Vec<Attempt>,
    measured: Measured,
}

struct Request {
    came: Duration,
    service: usize,
    caller: usize,
    priority: Priority,
    tried: Vec<usize>,
    retries: u32,
    permit: Option<Permit>,
    /// Until it has ended.
    active: Option<ActiveRequest>,
    is_over: bool,
    place: Option<FurtherTry>,
    /// Its last try.
    attempt: Option<usize>,
}

struct Attempt {
    request: usize,
    /// Among those of its service.
    server: usize,
    /// For how many that were not sent, itself among them.
    stands_for: u16,
    sent: Duration,
    is_over: bool,
    place: Option<FurtherTry>,
}

impl World {
    /// One in which nothing has happened yet.
    pub fn new(scenario: Scenario, strategy: Strategy, seed: u64) -> Self {
        let begin = Instant::now();
        let is_ours = strategy == Strategy::Ours;
        Self {
            scenario,
            strategy,
            breaker: strategy::breaker(),
            random: SmallRng::seed_from_u64(seed),
            begin,
            now: Duration::ZERO,
            events: Events::default(),
            servers: (0..SERVICES * SERVERS)
                .map(|_| Server::new(is_ours))
                .collect(),
            was_down: vec![false; SERVICES * SERVERS],
            callers: (0..NODES * SERVICES).map(|_| Caller::new(begin)).collect(),
            requests: Vec::new(),
            attempts: Vec::new(),
            measured: Measured::default(),
        }
    }

    /// Lets so many requests come, and everything happen that follows from them.
    pub fn run(mut self, requests: usize) -> Measured {
        self.events.add(Duration::ZERO, Event::Arrives);
        while let Some((at, event)) = self.events.next() {
            self.now = at;
            match event {
                Event::Arrives if self.requests.len() < requests => self.arrives(),
                Event::Arrives => {}
                Event::Reaches(attempt) => self.reaches(attempt),
                Event::Finishes {
                    server,
                    attempt,
                    life,
                } => self.finishes(server, attempt, life),
                Event::Expires(server) => {
                    let now = self.at();
                    let late = self.servers[server].expire(now);
                    self.refuse(late);
                }
                Event::Answers(attempt, answer) => self.answered(attempt, answer),
                Event::TimesOut(attempt) => self.times_out(attempt),
                Event::Retries(request) => {
                    if !self.requests[request].is_over {
                        self.attempt(request);
                    }
                }
                Event::EndsLate(request) => self.ends_late(request),
            }
        }
        // The last second is not whole.
        self.measured.seconds.pop();
        self.measured
    }

    fn at(&self) -> Instant {
        self.begin + self.now
    }

    fn arrives(&mut self) {
        let (service, rate) = self.service();
        // Exponential: clients do not know of each other.
        let gap = -(1.0 - chance(&mut self.random)).ln() / rate;
        let next = self.now + Duration::from_secs_f64(gap);
        self.events.add(next, Event::Arrives);

        let client = self.random.random_range(0..CLIENTS);
        let node = client as usize % NODES;
        let is_critical = self.random.random_bool(CRITICAL);
        let priority = if is_critical {
            Priority::CRITICAL
        } else {
            Priority {
                user: user_priority(&client.to_le_bytes(), 0),
                ..Priority::NORMAL
            }
        };
        let number = self.requests.len();
        self.requests.push(Request {
            came: self.now,
            service,
            caller: node * SERVICES + service,
            priority,
            tried: Vec::new(),
            retries: 0,
            permit: None,
            active: None,
            is_over: false,
            place: None,
            attempt: None,
        });
        if service < AFFECTED {
            let second = self.measured.at(self.now);
            second.asked += 1;
            second.critical += u32::from(is_critical);
        }
        if let Some(timeout) = self.strategy.request_timeout() {
            self.events.add(self.now + timeout, Event::EndsLate(number));
        }
        if self.strategy == Strategy::Ours {
            let (now, random) = (self.at(), chance(&mut self.random));
            let caller = &mut self.callers[node * SERVICES + service];
            let permit = caller.admit(is_critical, &self.breaker, now, random);
            let active = permit.map(|_| caller.budget.begin());
            let request = &mut self.requests[number];
            (request.permit, request.active) = (permit, active);
            if permit.is_none() {
                request.is_over = true;
                return;
            }
        }
        self.attempt(number);
    }

    /// For which service the next request is, and how many a second come to all.
    fn service(&mut self) -> (usize, f64) {
        let affected = self.scenario.load(0, self.now) * AFFECTED as f64;
        let others = self.scenario.load(SERVICES - 1, self.now) * (SERVICES - AFFECTED) as f64;
        let all = affected + others;
        let service = if self.random.random_bool(affected / all) {
            self.random.random_range(0..AFFECTED)
        } else {
            self.random.random_range(AFFECTED..SERVICES)
        };
        (service, all * capacity())
    }

    /// Sends a request to a server.
    fn attempt(&mut self, number: usize) {
        let now = self.at();
        let request = &mut self.requests[number];
        let (server, stands_for) = if self.strategy == Strategy::Ours {
            let caller = &mut self.callers[request.caller];
            let picked = caller.pick(&request.tried, request.priority, now, &mut self.random);
            let Some(picked) = picked else {
                // Each would refuse it.
                request.permit = None;
                self.end(number, Answer::Overloaded);
                return;
            };
            picked
        } else {
            (self.random.random_range(0..SERVERS), 1)
        };
        let request = &mut self.requests[number];
        request.tried.push(server);
        let attempt = self.attempts.len();
        request.attempt = Some(attempt);
        self.attempts.push(Attempt {
            request: number,
            server,
            stands_for,
            sent: self.now,
            is_over: false,
            place: request.place.take(),
        });
        if request.service < AFFECTED {
            self.measured.at(self.now).tries += 1;
        }
        self.events.add(self.now + WAY, Event::Reaches(attempt));
        if let Some(timeout) = self.strategy.try_timeout() {
            self.events
                .add(self.now + timeout, Event::TimesOut(attempt));
        }
    }

    fn reaches(&mut self, attempt: usize) {
        let now = self.at();
        let (service, server, priority) = {
            let Attempt {
                request, server, ..
            } = self.attempts[attempt];
            let request = &self.requests[request];
            (request.service, server, request.priority)
        };
        let place = service * SERVERS + server;
        if self.is_down(service, server) {
            self.answer(attempt, Answer::Failed);
            return;
        }
        // What was given up on the way does not reach a server behind an agent.
        if self.strategy == Strategy::Ours && self.attempts[attempt].is_over {
            return;
        }
        let stands_for = self.attempts[attempt].stands_for;
        let (taken, evicted) = self.servers[place].take(attempt, priority, stands_for, now);
        if let Some(evicted) = evicted {
            self.answer(evicted, Answer::Overloaded);
        }
        match taken {
            Taken::Begins => self.work(place, attempt),
            Taken::Waits if self.strategy == Strategy::Ours => {
                for wait in [strategy::QUEUE.min_wait, strategy::QUEUE.max_wait] {
                    self.events.add(self.now + wait, Event::Expires(place));
                }
            }
            Taken::Waits => {}
            Taken::Refused => self.answer(attempt, Answer::Overloaded),
        }
    }

    /// Whether a server is away. When it goes, all that it has ends with it.
    fn is_down(&mut self, service: usize, server: usize) -> bool {
        let is_down = self.scenario.is_down(service, server, self.now);
        let place = service * SERVERS + server;
        if is_down && !self.was_down[place] {
            for waiting in self.servers[place].restart() {
                self.answer(waiting, Answer::Failed);
            }
        }
        self.was_down[place] = is_down;
        is_down
    }

    /// A server begins with a request.
    fn work(&mut self, place: usize, attempt: usize) {
        let (shortest, longest) = SERVICE_TIME;
        let takes = shortest
            + longest
                .saturating_sub(shortest)
                .mul_f64(chance(&mut self.random));
        let (service, server) = (place / SERVERS, place % SERVERS);
        let takes = takes * self.scenario.slowness(service, server, self.now);
        let finishes = Event::Finishes {
            server: place,
            attempt,
            life: self.servers[place].life,
        };
        self.events.add(self.now + takes, finishes);
    }

    fn finishes(&mut self, place: usize, attempt: usize, life: u32) {
        if self.is_down(place / SERVERS, place % SERVERS) || self.servers[place].life != life {
            self.answer(attempt, Answer::Failed);
            return;
        }
        self.answer(attempt, Answer::Good);
        let now = self.at();
        let (next, late) = self.servers[place].finish(now);
        self.refuse(late);
        if let Some(next) = next {
            self.work(place, next);
        }
    }

    fn refuse(&mut self, late: Vec<usize>) {
        for attempt in late {
            self.answer(attempt, Answer::Overloaded);
        }
    }

    fn answer(&mut self, attempt: usize, answer: Answer) {
        self.events
            .add(self.now + WAY, Event::Answers(attempt, answer));
    }

    fn answered(&mut self, attempt: usize, answer: Answer) {
        if self.attempts[attempt].is_over {
            return;
        }
        self.attempts[attempt].is_over = true;
        let (number, server) = (
            self.attempts[attempt].request,
            self.attempts[attempt].server,
        );
        let took = self.now.saturating_sub(self.attempts[attempt].sent);
        self.learn(attempt, answer, took);
        let request = &self.requests[number];
        if self.strategy == Strategy::Ours {
            let now = self.at();
            let level = self.servers[request.service * SERVERS + server].level();
            self.callers[request.caller].told(server, level, now);
        }
        match answer {
            Answer::Good => self.end(number, Answer::Good),
            Answer::Failed | Answer::Overloaded => self.failed(number, answer),
        }
    }

    fn times_out(&mut self, attempt: usize) {
        if self.attempts[attempt].is_over || self.requests[self.attempts[attempt].request].is_over {
            return;
        }
        self.give_up(attempt);
        self.failed(self.attempts[attempt].request, Answer::Failed);
    }

    /// Nobody waits for this try any more.
    fn give_up(&mut self, attempt: usize) {
        let Attempt {
            request,
            server,
            sent,
            ..
        } = self.attempts[attempt];
        self.attempts[attempt].is_over = true;
        let service = self.requests[request].service;
        // The agent's connection ends, and with it what waits; a server's own queue does not notice.
        self.servers[service * SERVERS + server].remove(attempt);
        self.learn(attempt, Answer::Failed, self.now.saturating_sub(sent));
    }

    /// What a try says of its server.
    fn learn(&mut self, attempt: usize, answer: Answer, took: Duration) {
        self.attempts[attempt].place = None;
        if self.strategy == Strategy::Ours {
            let now = self.at();
            let Attempt {
                request, server, ..
            } = self.attempts[attempt];
            let caller = self.requests[request].caller;
            self.callers[caller].tried(server, answer, took, now);
        }
    }

    /// A try has failed: tries again, or ends the request.
    fn failed(&mut self, number: usize, answer: Answer) {
        let request = &mut self.requests[number];
        if request.is_over {
            return;
        }
        if request.retries >= self.strategy.retries() {
            self.end(number, answer);
            return;
        }
        let mut wait = Duration::ZERO;
        if self.strategy == Strategy::Ours {
            let budget = &self.callers[request.caller].budget;
            let Some(place) = budget.take(strategy::BUDGET) else {
                self.end(number, answer);
                return;
            };
            request.place = Some(place);
            wait = strategy::BACKOFF.wait(request.retries + 1, chance(&mut self.random));
        }
        let request = &mut self.requests[number];
        request.retries += 1;
        self.events.add(self.now + wait, Event::Retries(number));
    }

    fn ends_late(&mut self, number: usize) {
        if self.requests[number].is_over {
            return;
        }
        let under_way = self.requests[number].attempt;
        if let Some(attempt) = under_way.filter(|it| !self.attempts[*it].is_over) {
            self.give_up(attempt);
        }
        self.end(number, Answer::Failed);
    }

    /// A request has ended.
    fn end(&mut self, number: usize, answer: Answer) {
        let now = self.at();
        let random = chance(&mut self.random);
        let request = &mut self.requests[number];
        if request.is_over {
            return;
        }
        request.is_over = true;
        request.active = None;
        request.place = None;
        let took = self.now.saturating_sub(request.came);
        if let Some(permit) = request.permit.take() {
            let caller = &mut self.callers[request.caller];
            caller.ended(permit, answer, took, &self.breaker, now, random);
        }
        let is_critical = request.priority.is_critical();
        if request.service < AFFECTED && answer == Answer::Good && took <= USEFUL {
            let came = request.came;
            let second = self.measured.at(came);
            second.good += 1;
            second.critical_good += u32::from(is_critical);
            if (crate::scenario::BEGIN..self.scenario.end() + Duration::from_secs(10))
                .contains(&came)
            {
                self.measured
                    .latency
                    .saturating_record(took.as_micros() as u64);
            }
        }
    }
}
