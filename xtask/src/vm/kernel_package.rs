//! Kernels from Debian's packages: found in this machine's package lists, or else in those of other
//! releases of the same archive; unpacked, never installed.

use super::archive::lists_of;
use super::{directory, quiet};
use anyhow::{Context, Result, bail, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Releases that are asked when this machine's own has no such kernel.
const OTHER_RELEASES: [&str; 5] = [
    "bookworm",
    "bookworm-backports",
    "trixie",
    "forky",
    "bullseye",
];

/// What a kernel is made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flavour {
    /// Virtual machines of clouds: small, and without drivers of network cards.
    Cloud,
    /// Any machine.
    Generic,
}

impl Flavour {
    /// Whether a package, or its file, is of this flavour by its name.
    fn is_of(self, package: &str) -> bool {
        let name = package.split('_').next().unwrap_or(package);
        let Some(name) = name.strip_suffix("-amd64") else {
            return false;
        };
        match self {
            Self::Cloud => name.ends_with("-cloud"),
            // Such as linux-image-6.1.0-56-amd64, and not those with another word before the last.
            Self::Generic => name.ends_with(|last: char| last.is_ascii_digit()),
        }
    }

    fn purpose(self) -> &'static str {
        match self {
            Self::Cloud => "cloud machines",
            Self::Generic => "any machine",
        }
    }
}

/// An unpacked kernel package.
pub struct Kernel {
    directory: PathBuf,
    release: String,
}

impl Kernel {
    /// `name` is a series such as `6.1`, or the path of a package.
    pub fn find(name: &str, flavour: Flavour) -> Result<Self> {
        let is_series = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        let package = if is_series {
            in_archive(name, flavour)?
        } else {
            PathBuf::from(name)
        };
        let stem = package.file_stem().context("the package has no name")?;
        let directory = directory()?.join("kernels").join(stem);
        if !directory.exists() {
            let unfinished = directory.with_extension("unfinished");
            fs::create_dir_all(&unfinished)
                .with_context(|| format!("cannot create {}", unfinished.display()))?;
            quiet(
                Command::new("dpkg-deb")
                    .arg("--extract")
                    .args([&package, &unfinished]),
            )?;
            fs::rename(&unfinished, &directory).context("cannot rename the unpacked kernel")?;
        }
        let image = image_in(&directory)?;
        let release = image
            .file_name()
            .and_then(|name| name.to_str()?.strip_prefix("vmlinuz-"))
            .context("the kernel's file is not called vmlinuz-RELEASE")?
            .to_owned();
        Ok(Self { directory, release })
    }

    /// As `uname -r` prints it.
    pub fn release(&self) -> &str {
        &self.release
    }

    /// The file to boot.
    pub fn image(&self) -> Result<PathBuf> {
        image_in(&self.directory)
    }

    /// A module, uncompressed; `None` if the kernel has none of that name.
    pub fn module(&self, name: &str) -> Result<Option<Vec<u8>>> {
        for modules in ["lib/modules", "usr/lib/modules"] {
            let found = quiet(
                Command::new("find")
                    .arg(self.directory.join(modules))
                    .args(["-name", &format!("{name}.ko*")]),
            );
            let Some(path) = found.unwrap_or_default().lines().next().map(PathBuf::from) else {
                continue;
            };
            if path.extension().is_some_and(|extension| extension == "xz") {
                let output = Command::new("xz")
                    .args(["--decompress", "--stdout"])
                    .arg(&path)
                    .output()
                    .context("cannot start xz")?;
                ensure!(output.status.success(), "cannot unpack {}", path.display());
                return Ok(Some(output.stdout));
            }
            return fs::read(&path)
                .map(Some)
                .with_context(|| format!("cannot read {}", path.display()));
        }
        Ok(None)
    }
}

fn image_in(directory: &Path) -> Result<PathBuf> {
    fs::read_dir(directory.join("boot"))
        .with_context(|| format!("{} holds no kernel", directory.display()))?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with("vmlinuz-"))
        })
        .with_context(|| format!("{} holds no vmlinuz", directory.display()))
}

/// The newest kernel of a series, downloaded unless it is there from before.
fn in_archive(series: &str, flavour: Flavour) -> Result<PathBuf> {
    let packages = directory()?.join("packages");
    fs::create_dir_all(&packages)
        .with_context(|| format!("cannot create {}", packages.display()))?;
    let prefix = format!("linux-image-{series}.");
    let is_earlier = |name: &str| name.starts_with(&prefix) && flavour.is_of(name);
    let earlier = fs::read_dir(&packages)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| is_earlier(&name.to_string_lossy()))
        });
    if let Some(earlier) = earlier {
        return Ok(earlier);
    }
    let sources = std::iter::once(Ok(Vec::new()))
        .chain(OTHER_RELEASES.iter().map(|release| lists_of(release)));
    for options in sources {
        let Ok(options) = options else { continue };
        let Some(package) = newest(series, flavour, &options)? else {
            continue;
        };
        println!("· download {package}");
        quiet(
            Command::new("apt-get")
                .args(&options)
                // Root would be asked to let another user write here.
                .args(["-o", "APT::Sandbox::User=root", "download", &package])
                .current_dir(&packages),
        )?;
        return in_archive(series, flavour);
    }
    bail!(
        "Debian's archive has no kernel {series} for {}; give the path of a package with --kernel",
        flavour.purpose()
    )
}

/// The newest package of the series, signed as Debian ships it.
fn newest(series: &str, flavour: Flavour, options: &[String]) -> Result<Option<String>> {
    let pattern = format!("^linux-image-{}\\..*-amd64$", series.replace('.', "\\."));
    let found =
        quiet(
            Command::new("apt-cache")
                .args(options)
                .args(["search", "--names-only", &pattern]),
        )?;
    let mut names: Vec<&str> = found
        .lines()
        .filter_map(|line| line.split(' ').next())
        .filter(|name| flavour.is_of(name))
        .collect();
    names.sort_by_key(|name| numbers(name));
    Ok(names.last().map(|&name| name.to_owned()))
}

/// The numbers in a name, for putting versions in order.
fn numbers(name: &str) -> Vec<u64> {
    name.split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_s_name_tells_its_flavour() {
        for (name, flavour) in [
            ("linux-image-6.1.0-56-cloud-amd64", Some(Flavour::Cloud)),
            ("linux-image-6.1.0-56-amd64", Some(Flavour::Generic)),
            (
                "linux-image-6.12.90+deb12.1-amd64_6.12.90-1_amd64.deb",
                Some(Flavour::Generic),
            ),
            ("linux-image-6.1.0-56-rt-amd64", None),
            ("linux-image-6.1.0-56-amd64-unsigned", None),
        ] {
            for each in [Flavour::Cloud, Flavour::Generic] {
                assert_eq!(each.is_of(name), flavour == Some(each), "{name}");
            }
        }
    }
}
