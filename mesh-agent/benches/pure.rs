//! Benchmarks of code without I/O:
//! `cargo bench --package mesh-agent --profile fast`.

use std::{fmt::Write as _, hint::black_box};

use criterion::{Criterion, criterion_group, criterion_main};
use mesh_agent::config;
use mesh_common::token_address;

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

criterion_group!(pure, token, configuration);
criterion_main!(pure);
