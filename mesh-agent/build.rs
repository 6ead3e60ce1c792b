//! Builds the kernel half for the bpf target and leaves the object in `OUT_DIR`,
//! from where `kernel::load` embeds it: one file to ship.

// `set_var` is unsafe; see its reason.
#![allow(unsafe_code)]

use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    // SAFETY: a build script's main has no other threads yet. The pinned compiler is a stable one;
    // the bpf target has no prebuilt `core`, and building it is a `-Z` option.
    unsafe { std::env::set_var("RUSTC_BOOTSTRAP", "1") };
    println!("cargo:rerun-if-changed=../mesh-common/src");
    aya_build::build_ebpf(
        [Package {
            name: "mesh-ebpf",
            root_dir: concat!(env!("CARGO_MANIFEST_DIR"), "/../mesh-ebpf"),
            no_default_features: false,
            features: &[],
        }],
        Toolchain::Custom("1.95.0"),
    )
}
