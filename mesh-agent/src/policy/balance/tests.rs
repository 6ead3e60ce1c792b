use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;

struct Fake {
    load: EndpointLoad,
    is_healthy: bool,
    was_tried: bool,
    warmth: f64,
    is_near: bool,
}

impl Endpoint for Fake {
    fn warmth(&self) -> f64 {
        self.warmth
    }
    fn is_near(&self) -> bool {
        self.is_near
    }
    fn load(&self) -> &EndpointLoad {
        &self.load
    }
    fn is_healthy(&self) -> bool {
        self.is_healthy
    }
    fn was_tried(&self) -> bool {
        self.was_tried
    }
}

fn fakes(states: &[(bool, bool)]) -> Vec<Fake> {
    let now = Instant::now();
    let fake = |(is_healthy, was_tried): &(bool, bool)| Fake {
        load: EndpointLoad::new(now),
        is_healthy: *is_healthy,
        was_tried: *was_tried,
        warmth: 1.0,
        is_near: true,
    };
    states.iter().map(fake).collect()
}

fn balancer(algorithm: Algorithm, count: usize, panic_threshold: f64) -> Balancer {
    let names: Vec<String> = (0..count).map(|number| number.to_string()).collect();
    let endpoints: Vec<_> = names.iter().map(|name| (name.as_bytes(), 1)).collect();
    Balancer::new(algorithm, &endpoints, panic_threshold)
}

/// xorshift64*.
fn numbers(mut seed: u64) -> impl FnMut() -> u64 {
    move || {
        seed ^= seed >> 12;
        seed ^= seed << 25;
        seed ^= seed >> 27;
        seed.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16
    }
}

const ALL: [Algorithm; 5] = [
    Algorithm::RoundRobin,
    Algorithm::Random,
    Algorithm::LeastRequest,
    Algorithm::PeakEwma,
    Algorithm::ConsistentHash,
];

proptest! {
    #[test]
    fn only_healthy_endpoints_are_picked_unless_in_panic(
        states in prop::collection::vec((any::<bool>(), any::<bool>()), 1..12),
        which in 0..ALL.len(),
        panic_threshold in 0.0..1.0_f64,
        seed in 1..u64::MAX,
        key in prop::option::of(any::<u64>()),
    ) {
        let endpoints = fakes(&states);
        let balancer = balancer(ALL[which], states.len(), panic_threshold);
        let healthy = states.iter().filter(|(is_healthy, _)| *is_healthy).count();
        let is_panic = healthy == 0 || (healthy as f64) < states.len() as f64 * panic_threshold;
        let may = |index: usize| is_panic || states[index].0;
        let fresh_left = (0..states.len()).any(|index| may(index) && !states[index].1);
        let mut random = numbers(seed);
        for _ in 0..20 {
            let picked = balancer.pick(&endpoints, key, Instant::now(), &mut random).unwrap();
            prop_assert!(states.len() == 1 || may(picked));
            prop_assert!(states.len() == 1 || !fresh_left || !states[picked].1);
        }
    }
}

fn shares(algorithm: Algorithm, endpoints: &[Fake]) -> Vec<f64> {
    const PICKS: usize = 20_000;
    let balancer = balancer(algorithm, endpoints.len(), 0.5);
    let mut random = numbers(42);
    let mut counts = vec![0_u32; endpoints.len()];
    for _ in 0..PICKS {
        let key = Some(hash(&random().to_le_bytes(), 0));
        counts[balancer
            .pick(endpoints, key, Instant::now(), &mut random)
            .unwrap()] += 1;
    }
    counts
        .iter()
        .map(|count| f64::from(*count) / PICKS as f64)
        .collect()
}

#[test]
fn equal_endpoints_get_equal_shares() {
    for algorithm in ALL {
        // The first of two equals is kept, and both places are random.
        for share in shares(algorithm, &fakes(&[(true, false); 4])) {
            assert!((share - 0.25).abs() < 0.02, "{algorithm:?}: {share}");
        }
    }
}

#[test]
fn a_slow_endpoint_gets_little_and_a_busy_one_too() {
    let now = Instant::now();
    let endpoints = fakes(&[(true, false); 4]);
    endpoints[2].load.answered(Duration::from_secs(1), now);
    for _ in 0..10 {
        endpoints[1].load.begin();
    }
    assert!(shares(Algorithm::PeakEwma, &endpoints)[2] < 0.01);
    assert!(shares(Algorithm::LeastRequest, &endpoints)[1] < 0.01);
}

#[test]
fn a_key_stays_where_it_is() {
    let balancer = balancer(Algorithm::ConsistentHash, 5, 0.5);
    let endpoints = fakes(&[(true, false); 5]);
    let home = balancer
        .pick(&endpoints, Some(7), Instant::now(), numbers(1))
        .unwrap();
    let mut states = [(true, false); 5];
    for seed in 1..50 {
        assert_eq!(
            balancer.pick(&endpoints, Some(7), Instant::now(), numbers(seed)),
            Some(home)
        );
    }
    states[home].0 = false;
    let away = balancer
        .pick(&fakes(&states), Some(7), Instant::now(), numbers(3))
        .unwrap();
    assert_ne!(away, home);
}

/// How often each is picked, of 10,000 times.
fn picked(algorithm: Algorithm, endpoints: &[Fake]) -> Vec<u32> {
    let balancer = balancer(algorithm, endpoints.len(), 0.5);
    let mut random = numbers(7);
    let mut counts = vec![0; endpoints.len()];
    for _ in 0..10_000 {
        let picked = balancer.pick(endpoints, None, Instant::now(), &mut random);
        counts[picked.unwrap()] += 1;
    }
    counts
}

#[test]
fn slow_start_gives_a_share_of_the_share() {
    for algorithm in [
        Algorithm::RoundRobin,
        Algorithm::Random,
        Algorithm::LeastRequest,
    ] {
        let mut endpoints = fakes(&[(true, false); 5]);
        endpoints[0].warmth = 0.1;
        let counts = picked(algorithm, &endpoints);
        assert!((100..500).contains(&counts[0]), "{algorithm:?}: {counts:?}");
        // When all are new, none is.
        for endpoint in &mut endpoints {
            endpoint.warmth = 0.1;
        }
        let counts = picked(algorithm, &endpoints);
        assert!(
            counts.iter().all(|count| *count > 1500),
            "{algorithm:?}: {counts:?}"
        );
    }
}

#[test]
fn requests_stay_near_as_long_as_enough_are_healthy_there() {
    for algorithm in ALL {
        // Four are near, two far.
        let far = |down: &[usize]| {
            let mut endpoints = fakes(&[(true, false); 6]);
            for endpoint in &mut endpoints[4..] {
                endpoint.is_near = false;
            }
            for index in down {
                endpoints[*index].is_healthy = false;
            }
            let counts = picked(algorithm, &endpoints);
            counts[4] + counts[5]
        };
        assert_eq!(far(&[]), 0);
        assert_eq!(far(&[0]), 0);
        // Half of them can take 70%.
        assert!((2700..3300).contains(&far(&[0, 1])), "{algorithm:?}");
        assert_eq!(far(&[0, 4, 5]), 0);
    }
}
