use super::*;
use crate::proxy::idleness::IDLE;

fn with_defaults() -> Destinations {
    Destinations {
        unlisted: Some(Arc::new(Listed::unlisted(&config::Defaults::default()))),
        ..Destinations::default()
    }
}

fn use_once(destinations: &Destinations, port: u16) -> Option<Arc<Destination>> {
    let address = SocketAddr::from(([10, 0, 0, 1], port));
    Some(destinations.route(address)?.by_address())
}

fn known(destinations: &Destinations) -> Vec<String> {
    let list = destinations.list();
    let mut names: Vec<String> = list.iter().map(|it| it.name.to_string()).collect();
    names.sort();
    names
}

#[test]
fn unlisted_destinations_are_forgotten_once_nobody_uses_them() {
    let destinations = with_defaults();
    let mut now = Instant::now();
    let held = use_once(&destinations, 1);
    assert!(held.is_some());
    for port in [2, 3] {
        use_once(&destinations, port);
    }
    destinations.sweep(now);
    for _ in 0..3 {
        now += IDLE / 2;
        use_once(&destinations, 2);
        destinations.sweep(now);
    }
    assert_eq!(known(&destinations), ["10.0.0.1:1", "10.0.0.1:2"]);
    // Its connection has ended: it is idle from then on.
    drop(held);
    destinations.sweep(now + IDLE / 2);
    assert_eq!(known(&destinations).len(), 2);
    destinations.sweep(now + IDLE);
    assert_eq!(known(&destinations), [""; 0]);
}

#[test]
fn those_of_the_file_stay() -> Result<(), config::ConfigError> {
    let yaml = "destinations: [{name: web, addresses: [10.0.0.1], port: 80}]";
    let config = config::parse(yaml, "test")?.config;
    let destinations = Destinations::of(&config, &Destinations::default());
    use_once(&destinations, 80);
    let now = Instant::now();
    destinations.sweep(now);
    destinations.sweep(now + 2 * IDLE);
    assert_eq!(known(&destinations), ["web"]);
    Ok(())
}
