//! The queue by example, and against a model that keeps nothing but a list.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use crate::policy::{
    overload::{Lifo, Popped, Pushed, Queue, QueueLimits, Served, Ticket},
    priority::Priority,
};

const LIMITS: QueueLimits = QueueLimits {
    max_wait: Duration::from_millis(100),
    min_wait: Duration::from_millis(5),
    size: 1024,
    lifo: Lifo::Adaptive,
};

fn of(business: u8, user: u8) -> Priority {
    Priority { business, user }
}

fn milliseconds(count: u64) -> Duration {
    Duration::from_millis(count)
}

fn push(queue: &mut Queue<u64>, item: u64, now: Instant) {
    let pushed = queue.push(item, Priority::NORMAL, false, &LIMITS, now);
    assert!(matches!(pushed, Pushed::Waits(_)), "{pushed:?}");
}

fn pop(queue: &mut Queue<u64>, lifo: Lifo, now: Instant) -> Option<u64> {
    let limits = QueueLimits { lifo, ..LIMITS };
    let popped = queue.pop(&limits, now);
    popped.served.map(|it| it.item)
}

#[test]
fn the_oldest_is_next_until_the_queue_is_overloaded() {
    let start = Instant::now();
    for (lifo, before, after) in [
        (Lifo::Adaptive, 0, 100),
        (Lifo::Never, 0, 96),
        (Lifo::Always, 99, 100),
    ] {
        let mut queue = Queue::new();
        for item in 0..100 {
            push(&mut queue, item, start + milliseconds(item));
        }
        let now = start + milliseconds(99);
        assert!(!queue.is_overloaded(&LIMITS, now));
        assert_eq!(pop(&mut queue, lifo, now), Some(before), "{lifo:?}");
        let now = start + milliseconds(100);
        push(&mut queue, 100, now);
        assert!(queue.is_overloaded(&LIMITS, now));
        assert_eq!(pop(&mut queue, lifo, now), Some(after), "{lifo:?}");
    }
}

#[test]
fn once_empty_it_may_wait_long_again() {
    let start = Instant::now();
    let mut queue = Queue::new();
    push(&mut queue, 0, start);
    push(&mut queue, 1, start + milliseconds(98));
    assert_eq!(queue.next_expiry(&LIMITS), Some(start + milliseconds(100)));
    let now = start + milliseconds(102);
    let expired = queue.expire(&LIMITS, now);
    let expected = Served {
        item: 0,
        waited: milliseconds(102),
    };
    assert_eq!(expired, [expected]);
    assert_eq!(queue.next_expiry(&LIMITS), Some(start + milliseconds(103)));
    assert_eq!(pop(&mut queue, Lifo::Adaptive, now), Some(1));
    assert_eq!(queue.next_expiry(&LIMITS), None);
    assert!(!queue.is_overloaded(&LIMITS, now + milliseconds(500)));
    push(&mut queue, 2, now + milliseconds(10));
    push(&mut queue, 3, now + milliseconds(20));
    assert_eq!(queue.expire(&LIMITS, now + milliseconds(109)), []);
    assert_eq!(queue.expire(&LIMITS, now + milliseconds(110)).len(), 2);
}

#[test]
fn critical_ones_are_served_first_and_wait_longer() {
    let start = Instant::now();
    let mut queue = Queue::new();
    push(&mut queue, 0, start);
    queue.push(1, Priority::NORMAL, true, &LIMITS, start + milliseconds(10));
    push(&mut queue, 2, start + milliseconds(108));
    let now = start + milliseconds(109);
    let popped = queue.pop(&LIMITS, now);
    assert_eq!(popped.served.map(|it| it.item), Some(1));
    assert_eq!(popped.expired.len(), 1);
    queue.push(3, Priority::NORMAL, true, &LIMITS, now);
    let expired = queue.expire(&LIMITS, now + milliseconds(99));
    assert_eq!(expired.iter().map(|it| it.item).collect::<Vec<_>>(), [2]);
    assert_eq!(queue.expire(&LIMITS, now + milliseconds(100)).len(), 1);
}

#[test]
fn the_least_important_newest_one_gives_way() {
    let limits = QueueLimits { size: 4, ..LIMITS };
    let now = Instant::now();
    let mut queue = Queue::new();
    for (item, priority) in [of(16, 0), of(32, 7), of(32, 7), of(8, 0)]
        .into_iter()
        .enumerate()
    {
        queue.push(item, priority, false, &limits, now);
    }
    let mut evicted_by =
        |item, priority, is_critical| match queue.push(item, priority, is_critical, &limits, now) {
            Pushed::Waits(_) => panic!("there is no room"),
            Pushed::Replaced { evicted, .. } => evicted,
            Pushed::Full(item) => item,
        };
    assert_eq!(evicted_by(10, of(32, 7), false), 10, "not more important");
    assert_eq!(evicted_by(11, of(32, 6), false), 2, "the newest of two");
    assert_eq!(evicted_by(12, of(63, 0), true), 1, "critical");
    assert_eq!(evicted_by(13, of(63, 0), true), 11);
    assert_eq!(evicted_by(14, of(63, 0), true), 0);
    assert_eq!(evicted_by(15, of(0, 0), false), 3, "before it in name only");
    assert_eq!(evicted_by(16, of(63, 0), true), 15);
    assert_eq!(evicted_by(17, of(0, 0), true), 17, "only critical ones");
    assert_eq!(evicted_by(18, of(0, 0), false), 18);
}

#[test]
fn critical_ones_are_the_last_to_be_refused() {
    let limits = QueueLimits { size: 50, ..LIMITS };
    let now = Instant::now();
    let mut queue = Queue::new();
    let mut refused = Vec::new();
    for item in 0..200_u64 {
        let is_critical = item % 5 == 0;
        let priority = of((item % 64) as u8, (item % 128) as u8);
        match queue.push(item, priority, is_critical, &limits, now) {
            Pushed::Waits(_) => {}
            Pushed::Replaced { evicted, .. } => refused.push(evicted),
            Pushed::Full(item) => refused.push(item),
        }
    }
    assert_eq!(refused.len(), 150);
    assert!(refused.iter().all(|item| item % 5 != 0), "{refused:?}");
}

#[test]
fn one_whose_time_is_up_gives_way_first() {
    let limits = QueueLimits { size: 2, ..LIMITS };
    let start = Instant::now();
    let mut queue = Queue::new();
    queue.push(0, of(0, 0), true, &limits, start);
    queue.push(1, of(16, 0), false, &limits, start + milliseconds(50));
    let now = start + milliseconds(100);
    let pushed = queue.push(2, of(63, 0), false, &limits, now);
    assert!(matches!(pushed, Pushed::Replaced { evicted: 0, .. }));
    let pushed = queue.push(3, of(63, 0), false, &limits, now);
    assert!(matches!(pushed, Pushed::Replaced { evicted: 1, .. }));
    let pushed = queue.push(4, of(63, 0), false, &limits, now);
    assert_eq!(pushed, Pushed::Full(4));
}

#[test]
fn without_room_none_waits() {
    let limits = QueueLimits { size: 0, ..LIMITS };
    let mut queue = Queue::new();
    let now = Instant::now();
    let pushed = queue.push(1, Priority::CRITICAL, true, &limits, now);
    assert_eq!(pushed, Pushed::Full(1));
    // Also when there was room before.
    push(&mut queue, 2, now);
    let pushed = queue.push(3, Priority::CRITICAL, true, &limits, now);
    assert_eq!(pushed, Pushed::Full(3));
}

/// The same without any structure.
#[derive(Default)]
struct Model {
    waiting: Vec<Entry>,
    /// The last time it was empty; while it is, the present.
    empty: Option<Instant>,
}

#[derive(Clone)]
struct Entry {
    item: u64,
    ordinal: u16,
    is_critical: bool,
    since: Instant,
}

impl Model {
    /// Each call begins with it.
    fn at(&mut self, now: Instant) {
        if self.waiting.is_empty() {
            self.empty = Some(now);
        }
    }

    fn is_overloaded(&self, limits: &QueueLimits, now: Instant) -> bool {
        let empty = self.empty.unwrap_or(now);
        !self.waiting.is_empty() && now - empty >= limits.max_wait
    }

    fn is_late(&self, entry: &Entry, limits: &QueueLimits, now: Instant) -> bool {
        let bound = if self.is_overloaded(limits, now) && !entry.is_critical {
            limits.min_wait.min(limits.max_wait)
        } else {
            limits.max_wait
        };
        now - entry.since >= bound
    }

    fn push(&mut self, entry: Entry, limits: &QueueLimits, now: Instant) -> Option<u64> {
        let mut refused = None;
        if self.waiting.len() >= limits.size as usize {
            // The most dispensable one of all, the new one among them.
            let mut candidates = self.waiting.clone();
            candidates.push(entry.clone());
            let count = candidates.len();
            let worst = (0..count).max_by_key(|index| {
                let it = &candidates[*index];
                let is_new = index + 1 == count;
                let is_late = !is_new && self.is_late(it, limits, now);
                let late = (
                    is_late,
                    is_late && it.is_critical,
                    is_late.then_some(count - index),
                );
                (
                    late,
                    !it.is_critical,
                    it.ordinal * u16::from(!it.is_critical),
                    is_new,
                    *index,
                )
            });
            refused = worst.map(|index| candidates[index].item);
            if limits.size == 0 || refused == Some(entry.item) {
                return Some(entry.item);
            }
        }
        self.waiting.push(entry);
        self.waiting.retain(|it| Some(it.item) != refused);
        refused
    }

    fn expire(&mut self, limits: &QueueLimits, now: Instant) -> Vec<u64> {
        let is_late = |it: &&Entry| self.is_late(it, limits, now);
        let mut late: Vec<_> = self.waiting.iter().filter(is_late).cloned().collect();
        late.sort_by_key(|it| !it.is_critical);
        let late: Vec<_> = late.iter().map(|it| it.item).collect();
        self.waiting.retain(|it| !late.contains(&it.item));
        late
    }

    fn pop(&mut self, limits: &QueueLimits, now: Instant) -> Option<u64> {
        let is_newest_first = match limits.lifo {
            Lifo::Adaptive => self.is_overloaded(limits, now),
            Lifo::Never => false,
            Lifo::Always => true,
        };
        let any_critical = self.waiting.iter().any(|it| it.is_critical);
        let mut items = self
            .waiting
            .iter()
            .filter(|it| it.is_critical == any_critical);
        let next = if is_newest_first {
            items.next_back()
        } else {
            items.next()
        };
        let next = next.map(|it| it.item);
        self.waiting.retain(|it| Some(it.item) != next);
        next
    }
}

#[derive(Clone, Debug)]
enum Event {
    Push {
        business: u8,
        user: u8,
        is_critical: bool,
    },
    Pop,
    Expire,
    Remove(u64),
    Reload(QueueLimits),
}

fn limits() -> impl Strategy<Value = QueueLimits> {
    let lifo = prop_oneof![
        3 => Just(Lifo::Adaptive),
        1 => Just(Lifo::Never),
        1 => Just(Lifo::Always),
    ];
    let waits = prop_oneof![4 => Just((100, 5)), 1 => (0..30_u64, 0..30_u64)];
    (waits, prop_oneof![0..8_u32, Just(1024)], lifo).prop_map(
        |((max_wait, min_wait), size, lifo)| QueueLimits {
            max_wait: milliseconds(max_wait),
            min_wait: milliseconds(min_wait),
            size,
            lifo,
        },
    )
}

fn event() -> impl Strategy<Value = Event> {
    let push = (0..4_u8, 0..3_u8, prop::bool::weighted(0.15));
    prop_oneof![
        60 => push.prop_map(|(business, user, is_critical)| Event::Push {
            business,
            user,
            is_critical,
        }),
        40 => Just(Event::Pop),
        5 => Just(Event::Expire),
        5 => (0..20_u64).prop_map(Event::Remove),
        1 => limits().prop_map(Event::Reload),
    ]
}

fn items(served: &[Served<u64>]) -> Vec<u64> {
    served.iter().map(|it| it.item).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn it_does_what_the_model_does(
        first in limits(),
        events in prop::collection::vec((event(), prop_oneof![3 => 0..4_u64, 1 => 0..40_u64]), 1..400),
    ) {
        let (mut queue, mut model, mut limits) = (Queue::new(), Model::default(), first);
        let mut tickets: Vec<(Ticket, u64)> = Vec::new();
        let mut now = Instant::now();
        for (index, (event, passed)) in events.into_iter().enumerate() {
            now += milliseconds(passed);
            model.at(now);
            prop_assert_eq!(queue.is_overloaded(&limits, now), model.is_overloaded(&limits, now));
            let is_due = queue.next_expiry(&limits).is_some_and(|expiry| expiry <= now);
            let late = model.waiting.iter().any(|it| model.is_late(it, &limits, now));
            prop_assert_eq!(is_due, late);
            let item = index as u64;
            match event {
                Event::Push { business, user, is_critical } => {
                    let priority = of(business, user);
                    let entry = Entry { item, ordinal: priority.ordinal(), is_critical, since: now };
                    let expected = model.push(entry, &limits, now);
                    let refused = match queue.push(item, priority, is_critical, &limits, now) {
                        Pushed::Waits(ticket) => { tickets.push((ticket, item)); None }
                        Pushed::Replaced { ticket, evicted } => { tickets.push((ticket, item)); Some(evicted) }
                        Pushed::Full(item) => Some(item),
                    };
                    prop_assert_eq!(refused, expected);
                }
                Event::Pop => {
                    let Popped { served, expired } = queue.pop(&limits, now);
                    prop_assert_eq!(items(&expired), model.expire(&limits, now));
                    model.at(now);
                    let expected = model.waiting.clone();
                    let next = model.pop(&limits, now);
                    prop_assert_eq!(served.as_ref().map(|it| it.item), next);
                    if let Some(served) = served {
                        let entry = expected.iter().find(|it| it.item == served.item);
                        prop_assert_eq!(Some(served.waited), entry.map(|it| now - it.since));
                    }
                }
                Event::Expire => {
                    let expired = queue.expire(&limits, now);
                    prop_assert_eq!(items(&expired), model.expire(&limits, now));
                }
                Event::Remove(back) => {
                    let index = tickets.len().checked_sub(1 + back as usize);
                    if let Some((ticket, item)) = index.map(|index| tickets[index]) {
                        let is_there = model.waiting.iter().any(|it| it.item == item);
                        prop_assert_eq!(queue.remove(ticket), is_there.then_some(item));
                        model.waiting.retain(|it| it.item != item);
                        prop_assert_eq!(queue.remove(ticket), None, "once");
                    }
                }
                Event::Reload(new) => limits = new,
            }
            prop_assert_eq!(queue.len(), model.waiting.len());
        }
    }
}
