//! Builds the kernel half for the bpf target and leaves the object in `OUT_DIR`,
//! from where `kernel::load` embeds it: one file to ship.

// `set_var` is unsafe; see its reason.
#![allow(unsafe_code)]

use std::{
    env, fs, io,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use aya_build::{Package, Toolchain};

fn main() -> anyhow::Result<()> {
    share_between_profiles().context("cannot share the kernel half between profiles")?;
    // SAFETY: a build script's main has no other threads yet. The pinned compiler is a stable one;
    // the bpf target has no prebuilt `core`, and building it is a `-Z` option.
    unsafe { env::set_var("RUSTC_BOOTSTRAP", "1") };
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

/// The kernel half is the same in every profile, and takes half a minute with its `core`: built once, below the target
/// directory, where aya-build would build it for each profile and each of clippy, build and test.
fn share_between_profiles() -> anyhow::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").context("OUT_DIR is not set")?);
    let own = out.join("aya-build");
    fs::create_dir_all(&own)?;
    // Past `out`, this package, `build` and the profile, wherever all of it is moved to.
    let shared = Path::new("../../../../../kernel-half");
    fs::create_dir_all(own.join(shared))?;
    match symlink(shared, own.join("target")) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => Ok(made?),
    }
}
