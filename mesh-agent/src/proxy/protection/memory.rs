//! What is kept of a destination fits into 16 KiB, with every policy on.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderMap;

use super::{Asking, Protection};
use crate::{
    config,
    policy::{breaker::Call, response_histogram::ResponseHistogram},
    proxy::destinations::{Destination, Policy, RequestCounters, Server},
};

const EVERYTHING: &str = "
destinations:
  - name: web
    hosts: [web]
    policy:
      breaker: {consecutive: 5, failureRatio: 0.5, slowCall: {threshold: 1s}, window: 10000, throttle: {}, ejection: {failureRatio: 0.5}}
      limits:
        requests: 10
        connections: 10
        adaptive: {}
        rate:
          - {algorithm: fixed-window, limit: 1000}
          - {algorithm: sliding-window, limit: 1000}
          - {algorithm: token-bucket, limit: 1000, follow: [{failureRatio: 0.5, factor: 0.5}]}
      critical: ['path:/a']
";

#[test]
fn a_destination_with_all_policies_fits_into_16_kib() {
    let loaded = config::parse(EVERYTHING, "mesh.yaml").unwrap_or_else(|error| panic!("{error}"));
    let configured = &loaded.config.destinations[0];
    let now = Instant::now();
    let address = "10.0.0.1:80"
        .parse()
        .unwrap_or_else(|error| panic!("{error}"));
    let destination = Arc::new(Destination::new(
        "web".into(),
        configured.protocol,
        Arc::new(Policy::from(&configured.policy)),
        &[Server::only(address)],
        None,
        now,
    ));
    let policy = destination.policy.protection.as_deref();
    let policy = policy.unwrap_or_else(|| panic!("a policy"));
    let headers = HeaderMap::new();
    let asking = Asking {
        pod: "client",
        headers: Some(&headers),
        is_critical: false,
    };
    // Everything that is made when it is first needed.
    for call in 0..20_000_u32 {
        let now = now + Duration::from_millis(2) * call;
        if let Ok(mut admitted) = Protection::admit(&destination, policy, &asking, now) {
            admitted.record(Call::Succeeded, Duration::from_millis(1), now);
        }
    }
    let fixed = size_of::<Destination>()
        + size_of::<RequestCounters>()
        + size_of::<Protection>()
        + ResponseHistogram::BYTES
        + size_of_val(policy);
    let bytes = fixed + destination.protection.state().heap_bytes();
    assert!(
        bytes < 16 << 10,
        "{bytes} bytes, {fixed} of them in any case"
    );
    assert!(bytes > 4 << 10, "{bytes} bytes: something was not counted");
}
