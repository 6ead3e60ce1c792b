//! A server: it works on a few requests at once, the others wait.

use std::{
    collections::VecDeque,
    time::{Duration, Instant},
};

use mesh_agent::policy::{
    overload::{Admission, Pushed, Queue, Served, Ticket},
    priority::Priority,
};

use crate::{
    scenario::WORKERS,
    strategy::{ADMISSION, QUEUE},
};

/// Requests that wait at a server without overload control: as many as an ordinary one accepts.
const BACKLOG: usize = 1000;

/// A server.
#[derive(Debug)]
pub struct Server {
    /// Requests that it works on.
    busy: usize,
    /// How often it was restarted.
    pub life: u32,
    waiting: Waiting,
}

#[derive(Debug)]
enum Waiting {
    /// In the order in which they came, whether or not anybody still wants an answer.
    Plain(VecDeque<usize>),
    /// As the agent has it.
    Controlled {
        queue: Queue<usize>,
        keys: Vec<(usize, Ticket)>,
        admission: Box<Admission>,
    },
}

/// What becomes of a request that comes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// It is worked on at once.
    Begins,
    /// It waits.
    Waits,
    /// It is refused.
    Refused,
}

impl Server {
    /// One with nothing to do.
    pub fn new(is_controlled: bool) -> Self {
        Self {
            busy: 0,
            life: 0,
            waiting: if is_controlled {
                Waiting::Controlled {
                    queue: Queue::default(),
                    keys: Vec::new(),
                    admission: Box::default(),
                }
            } else {
                Waiting::Plain(VecDeque::new())
            },
        }
    }

    /// A request comes, which stands for so many. Says what had to leave for it, too.
    pub fn take(
        &mut self,
        attempt: usize,
        priority: Priority,
        stands_for: u16,
        now: Instant,
    ) -> (Taken, Option<usize>) {
        let is_free = self.busy < WORKERS;
        match &mut self.waiting {
            Waiting::Plain(_) if is_free => {
                self.busy += 1;
                (Taken::Begins, None)
            }
            Waiting::Plain(waiting) if waiting.len() < BACKLOG => {
                waiting.push_back(attempt);
                (Taken::Waits, None)
            }
            Waiting::Plain(_) => (Taken::Refused, None),
            Waiting::Controlled {
                queue,
                keys,
                admission,
            } => {
                let is_critical = priority.is_critical();
                if !admission.admits(priority, stands_for, &ADMISSION, now) && !is_critical {
                    return (Taken::Refused, None);
                }
                if is_free {
                    self.busy += 1;
                    admission.waited(Duration::ZERO, now);
                    return (Taken::Begins, None);
                }
                let (ticket, evicted) =
                    match queue.push(attempt, priority, is_critical, &QUEUE, now) {
                        Pushed::Waits(ticket) => (ticket, None),
                        Pushed::Replaced { ticket, evicted } => (ticket, Some(evicted)),
                        Pushed::Full(_) => {
                            admission.expired(Duration::ZERO, now);
                            return (Taken::Refused, None);
                        }
                    };
                keys.push((attempt, ticket));
                if let Some(evicted) = evicted {
                    admission.expired(Duration::ZERO, now);
                    keys.retain(|(attempt, _)| *attempt != evicted);
                }
                (Taken::Waits, evicted)
            }
        }
    }

    /// A request is done; says which one is worked on next, and which have waited too long.
    pub fn finish(&mut self, now: Instant) -> (Option<usize>, Vec<usize>) {
        self.busy -= 1;
        let (next, late) = match &mut self.waiting {
            Waiting::Plain(waiting) => (waiting.pop_front(), Vec::new()),
            Waiting::Controlled {
                queue,
                keys,
                admission,
            } => {
                let popped = queue.pop(&QUEUE, now);
                if let Some(served) = &popped.served {
                    admission.waited(served.waited, now);
                    keys.retain(|(attempt, _)| *attempt != served.item);
                }
                let late = expired(popped.expired, keys, admission, now);
                (popped.served.map(|served| served.item), late)
            }
        };
        self.busy += usize::from(next.is_some());
        (next, late)
    }

    /// Those that have waited too long.
    pub fn expire(&mut self, now: Instant) -> Vec<usize> {
        match &mut self.waiting {
            Waiting::Plain(_) => Vec::new(),
            Waiting::Controlled {
                queue,
                keys,
                admission,
            } => expired(queue.expire(&QUEUE, now), keys, admission, now),
        }
    }

    /// A request that waits is not wanted any more.
    pub fn remove(&mut self, attempt: usize) {
        if let Waiting::Controlled { queue, keys, .. } = &mut self.waiting
            && let Some(place) = keys.iter().position(|(known, _)| *known == attempt)
        {
            queue.remove(keys.swap_remove(place).1);
        }
    }

    /// Up to which priority it lets requests in.
    pub fn level(&self) -> u16 {
        match &self.waiting {
            Waiting::Plain(_) => u16::MAX,
            Waiting::Controlled { admission, .. } => admission.level(),
        }
    }

    /// It ends, and with it all that it worked on and that waits; says what waits.
    pub fn restart(&mut self) -> Vec<usize> {
        self.busy = 0;
        self.life += 1;
        match &mut self.waiting {
            Waiting::Plain(waiting) => waiting.drain(..).collect(),
            Waiting::Controlled { queue, keys, .. } => {
                *queue = Queue::default();
                keys.drain(..).map(|(attempt, _)| attempt).collect()
            }
        }
    }
}

fn expired(
    expired: Vec<Served<usize>>,
    keys: &mut Vec<(usize, Ticket)>,
    admission: &mut Admission,
    now: Instant,
) -> Vec<usize> {
    for late in &expired {
        admission.expired(late.waited, now);
        keys.retain(|(attempt, _)| *attempt != late.item);
    }
    expired.into_iter().map(|late| late.item).collect()
}
