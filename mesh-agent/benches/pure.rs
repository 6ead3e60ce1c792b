//! Benchmarks of code without I/O:
//! `cargo bench --package mesh-agent --profile fast`.

use std::{
    fmt::Write as _,
    hint::black_box,
    sync::{Arc, Mutex},
    thread,
    time::Instant,
};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Extensions, Request};
use mesh_agent::{config, proxy::Traffic};
use mesh_common::token_address;
use tokio::sync::oneshot;

fn token(criterion: &mut Criterion) {
    let mut port = 0_u16;
    criterion.bench_function("token_address", |bencher| {
        bencher.iter(|| {
            port = port.wrapping_add(1);
            token_address(black_box(0x0a4d_0001), port)
        });
    });
}

fn configuration(criterion: &mut Criterion) {
    let mut text = String::from("pods:\n");
    for pod in 0..100 {
        writeln!(
            text,
            "  - name: pod-{pod}\n    netns: /run/netns/pod-{pod}\n    excludePorts: [22, 10250]\n    \
             excludeCidrs: [169.254.0.0/16]"
        )
        .expect("writing to a string");
    }
    criterion.bench_function("config::parse, 100 pods", |bencher| {
        bencher.iter(|| config::parse(black_box(&text), "bench").expect("it is valid"));
    });
}

/// What every answer pays for its pod's series: alone, and where two workers serve the same pod and
/// count all the time, which is far more often than they can answer.
fn counted(criterion: &mut Criterion) {
    let names: Vec<Arc<str>> = (0..16)
        .map(|it| format!("10.96.0.{it}:80").into())
        .collect();
    let traffic = Traffic::default();
    let count = |times: u64| {
        for name in names.iter().cycle().take(times as usize) {
            traffic.count(black_box(name), 200, None);
        }
    };
    criterion.bench_function("Traffic::count", |bencher| {
        bencher.iter_custom(|times| {
            let begun = Instant::now();
            count(times);
            begun.elapsed()
        });
    });
    criterion.bench_function("Traffic::count, two threads at once", |bencher| {
        bencher.iter_custom(|times| {
            let begun = Instant::now();
            thread::scope(|scope| {
                scope.spawn(|| count(times));
                count(times);
            });
            begun.elapsed()
        });
    });
}

/// What every try over HTTP/1 pays so that interim answers are heard: as `proxy::http::interim::watch`
/// makes it, to what already has an extension, as what hyper's server gives has.
fn interim(criterion: &mut Criterion) {
    #[derive(Clone)]
    struct Present;
    let waiting: Arc<Mutex<Vec<u8>>> = Arc::default();
    let request = || {
        let mut extensions = Extensions::new();
        extensions.insert(Present);
        let mut request = Request::new(());
        *request.extensions_mut() = extensions;
        request
    };
    let watched = || {
        let mut request = request();
        let wanted: Mutex<Option<oneshot::Sender<()>>> = Mutex::new(None);
        let waiting = Arc::clone(&waiting);
        hyper::ext::on_informational(&mut request, move |answer| {
            let _wanted = wanted.lock();
            let mut waiting = waiting.lock().expect("nobody panics");
            waiting.extend(answer.status().as_str().as_bytes());
        });
        request
    };
    criterion.bench_function("a request", |bencher| bencher.iter(|| drop(request())));
    criterion.bench_function("a request, watched", |bencher| {
        bencher.iter(|| drop(watched()));
    });
}

criterion_group!(pure, token, configuration, counted, interim);
criterion_main!(pure);
