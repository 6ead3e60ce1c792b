//! Kernels from Debian's packages: found in this machine's package lists, or else in those of other
//! releases of the same archive; unpacked, never installed.

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

/// What tells that a package is Debian's own.
const KEYRING: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// An unpacked kernel package.
pub struct Kernel {
    directory: PathBuf,
    release: String,
}

impl Kernel {
    /// `name` is a series such as `6.1`, or the path of a package.
    pub fn find(name: &str) -> Result<Self> {
        let is_series = name.chars().all(|c| c.is_ascii_digit() || c == '.');
        let package = if is_series {
            in_archive(name)?
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
fn in_archive(series: &str) -> Result<PathBuf> {
    let packages = directory()?.join("packages");
    fs::create_dir_all(&packages)
        .with_context(|| format!("cannot create {}", packages.display()))?;
    let prefix = format!("linux-image-{series}.");
    let earlier = fs::read_dir(&packages)?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| {
            path.file_name()
                .is_some_and(|name| name.to_string_lossy().starts_with(&prefix))
        });
    if let Some(earlier) = earlier {
        return Ok(earlier);
    }
    let sources = std::iter::once(Ok(Vec::new()))
        .chain(OTHER_RELEASES.iter().map(|release| lists_of(release)));
    for options in sources {
        let Ok(options) = options else { continue };
        let Some(package) = newest(series, &options)? else {
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
        return in_archive(series);
    }
    bail!(
        "Debian's archive has no kernel {series} for cloud machines; give the path of a package with \
         --kernel"
    )
}

/// The newest package of the series for virtual machines, signed as Debian ships it.
fn newest(series: &str, options: &[String]) -> Result<Option<String>> {
    let pattern = format!(
        "^linux-image-{}\\..*-cloud-amd64$",
        series.replace('.', "\\.")
    );
    let found =
        quiet(
            Command::new("apt-cache")
                .args(options)
                .args(["search", "--names-only", &pattern]),
        )?;
    let mut names: Vec<&str> = found
        .lines()
        .filter_map(|line| line.split(' ').next())
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

/// Options by which apt reads the lists of another release from this machine's own archive, kept apart
/// from the machine's.
fn lists_of(release: &str) -> Result<Vec<String>> {
    let directory = directory()?.join("apt").join(release);
    for part in ["lists/partial", "cache/archives/partial"] {
        fs::create_dir_all(directory.join(part)).context("cannot make apt's directories")?;
    }
    let archive = quiet(Command::new("apt-get").args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(LABEL) $(REPO_URI)",
        "Created-By: Packages",
    ]))?;
    let archive = archive
        .lines()
        .find_map(|line| line.strip_prefix("Debian Debian "))
        .context("this machine's package lists are not Debian's")?;
    let sources = directory.join("release.sources");
    fs::write(
        &sources,
        format!(
            "Types: deb\nURIs: {archive}\nSuites: {release}\nComponents: main\nSigned-By: {KEYRING}\n"
        ),
    )
    .context("cannot write apt's sources")?;
    let option = |name: &str, value: &Path| format!("-o{name}={}", value.display());
    let options = vec![
        option("Dir::Etc::sourcelist", &sources),
        "-oDir::Etc::sourceparts=/dev/null".to_owned(),
        option("Dir::State::lists", &directory.join("lists")),
        option("Dir::Cache", &directory.join("cache")),
        "-oAPT::Sandbox::User=root".to_owned(),
    ];
    quiet(Command::new("apt-get").args(&options).arg("update"))?;
    Ok(options)
}
