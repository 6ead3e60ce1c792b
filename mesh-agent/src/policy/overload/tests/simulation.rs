//! A server in overload, in steps of a millisecond: it serves so many requests in a second, at once if it
//! can, the others wait in its queue.

use std::time::{Duration, Instant};

use crate::policy::{
    overload::{Admission, AdmissionLimits, Answer, Lifo, Pushed, Queue, QueueLimits, ToldLevel},
    priority::Priority,
};

pub const LIMITS: AdmissionLimits = AdmissionLimits {
    wait_target: Duration::from_millis(20),
};
/// As in the paper.
pub const SHORT: QueueLimits = QueueLimits {
    max_wait: Duration::from_millis(100),
    min_wait: Duration::from_millis(5),
    size: 1024,
    lifo: Lifo::Adaptive,
};
/// Without controlled delay.
pub const LONG: QueueLimits = QueueLimits {
    max_wait: Duration::from_secs(1),
    min_wait: Duration::from_secs(1),
    size: 100_000,
    lifo: Lifo::Never,
};

/// Who sends with which priority.
#[derive(Clone, Copy, Debug)]
pub enum Mix {
    /// Five kinds, and all users.
    Many,
    /// All the same.
    Same,
}

pub struct Simulation {
    pub admission: Admission,
    queue: Queue<bool>,
    queue_limits: QueueLimits,
    pub callers: Vec<ToldLevel>,
    mix: Mix,
    /// Per millisecond.
    capacity: f64,
    to_serve: f64,
    to_send: f64,
    pub now: Instant,
    random: u64,
}

/// What happened in some time.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub sent: u32,
    pub admitted: u32,
    pub served: u32,
    pub critical: u32,
    pub critical_served: u32,
    /// How many came to the server.
    pub arrived: u32,
}

impl Simulation {
    /// With so many callers that remember what they are told.
    pub fn new(per_second: u32, queue_limits: QueueLimits, mix: Mix, callers: usize) -> Self {
        Self {
            admission: Admission::new(),
            queue: Queue::new(),
            queue_limits,
            callers: vec![ToldLevel::default(); callers],
            mix,
            capacity: f64::from(per_second) / 1000.0,
            to_serve: 0.0,
            to_send: 0.0,
            now: Instant::now(),
            random: 88_172_645_463_325_252,
        }
    }

    /// Xorshift.
    fn random(&mut self, below: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random >> 16) % below
    }

    fn priority(&mut self) -> Priority {
        match self.mix {
            Mix::Same => Priority::NORMAL,
            Mix::Many => {
                // 2% critical.
                let kinds = [8, 16, 16, 32, 48];
                let business = if self.random(50) == 0 {
                    0
                } else {
                    kinds[self.random(5) as usize]
                };
                let user = self.random(128) as u8;
                Priority { business, user }
            }
        }
    }

    /// Sends `load` times what the server can serve, for so long.
    pub fn run(&mut self, load: f64, seconds: u32) -> Seen {
        let mut seen = Seen::default();
        for _ in 0..seconds * 1000 {
            self.now += Duration::from_millis(1);
            // Uneven, but right on average.
            self.to_send += self.capacity * load * self.random(2001) as f64 / 1000.0;
            while self.to_send >= 1.0 {
                self.to_send -= 1.0;
                self.send(&mut seen);
            }
            self.to_serve += self.capacity;
            while self.to_serve >= 1.0 {
                self.to_serve -= 1.0;
                self.serve(&mut seen);
            }
        }
        seen
    }

    fn send(&mut self, seen: &mut Seen) {
        let (priority, now) = (self.priority(), self.now);
        let is_critical = priority.is_critical();
        seen.sent += 1;
        seen.critical += u32::from(is_critical);
        let mut stands_for = 1;
        let caller = match self.callers.len() {
            0 => None,
            count => Some(self.random(count as u64) as usize),
        };
        if let Some(caller) = caller {
            match self.callers[caller].ask(priority, now) {
                Answer::Admitted => {}
                Answer::Probe { stands_for: all } => stands_for = all,
                Answer::Refused => return,
            }
        }
        seen.arrived += 1;
        let is_admitted = self.admission.admits(priority, stands_for, &LIMITS, now);
        if let Some(caller) = caller {
            self.callers[caller].told(self.admission.level(), now);
        }
        if !is_admitted {
            return;
        }
        seen.admitted += 1;
        match self
            .queue
            .push(is_critical, priority, is_critical, &self.queue_limits, now)
        {
            Pushed::Waits(_) => {}
            Pushed::Replaced { .. } | Pushed::Full(_) => {
                self.admission.expired(Duration::ZERO, now);
            }
        }
    }

    fn serve(&mut self, seen: &mut Seen) {
        let popped = self.queue.pop(&self.queue_limits, self.now);
        for expired in popped.expired {
            self.admission.expired(expired.waited, self.now);
        }
        if let Some(served) = popped.served {
            self.admission.waited(served.waited, self.now);
            seen.served += 1;
            seen.critical_served += u32::from(served.item);
        }
    }
}
