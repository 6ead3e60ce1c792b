//! Which QEMU: the installed one, or a newer one from Debian's archive, unpacked and never installed, where
//! the installed one lacks the network card.

use super::{archive, directory, quiet};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A card with a clock that stamps packets as they leave, and those of PTP as they come in. QEMU has it
/// since 8.0; Debian 12 has 7.2.
const CARD: &str = "igb";

/// Releases that have a newer one, of which the first runs on Debian 12.
const RELEASES: [&str; 2] = ["bookworm-backports", "trixie"];

/// The program, and what it reads when it starts. Its other libraries are those of the installed one.
const PACKAGES: [&str; 4] = [
    "qemu-system-x86",
    "qemu-system-common",
    "qemu-system-data",
    "seabios",
];

/// A QEMU.
pub struct Emulator {
    /// Where it is unpacked; `None` for the installed one.
    unpacked: Option<PathBuf>,
}

impl Emulator {
    /// The one of this machine.
    pub const fn installed() -> Self {
        Self { unpacked: None }
    }

    /// One that emulates the card.
    pub fn with_card() -> Result<Self> {
        let installed = Self::installed();
        if installed.has_card() {
            return Ok(installed);
        }
        for release in RELEASES {
            let Ok(unpacked) = unpack(release) else {
                continue;
            };
            let emulator = Self {
                unpacked: Some(unpacked),
            };
            if emulator.has_card() {
                return Ok(emulator);
            }
        }
        bail!(
            "the installed QEMU has no card `{CARD}`, and neither has one of {} that runs here",
            RELEASES.join(" or ")
        )
    }

    fn has_card(&self) -> bool {
        let mut command = self.command();
        command.args(["-device", &format!("{CARD},help")]);
        // The old one says that it does not know the device, and ends well.
        quiet(&mut command).is_ok_and(|help| help.contains("options"))
    }

    /// The program with what it needs to find its files.
    pub fn command(&self) -> Command {
        const PROGRAM: &str = "qemu-system-x86_64";
        let Some(root) = &self.unpacked else {
            return Command::new(PROGRAM);
        };
        let mut command = Command::new(root.join("usr/bin").join(PROGRAM));
        for data in ["usr/share/qemu", "usr/share/seabios"] {
            command.arg("-L").arg(root.join(data));
        }
        // It would take the installed one's, which are of another build.
        command.env(
            "QEMU_MODULE_DIR",
            root.join("usr/lib/x86_64-linux-gnu/qemu"),
        );
        command
    }
}

/// Two cards on one wire.
pub fn cards() -> Vec<String> {
    // Each has virtual functions 16 slots further on.
    [4, 8]
        .iter()
        .enumerate()
        .flat_map(|(number, slot)| {
            [
                "-netdev".to_owned(),
                format!("hubport,id=wire{number},hubid=0"),
                "-device".to_owned(),
                format!("{CARD},netdev=wire{number},addr={slot},romfile="),
            ]
        })
        .collect()
}

/// Downloads and unpacks, unless it is there from before.
fn unpack(release: &str) -> Result<PathBuf> {
    let root = directory()?.join("emulators").join(release);
    if root.exists() {
        return Ok(root);
    }
    let packages = root.with_extension("packages");
    fs::create_dir_all(&packages).context("cannot make the packages' directory")?;
    let options = archive::lists_of(release)?;
    println!("· download QEMU of {release}");
    let names = PACKAGES.map(|name| format!("{name}/{release}"));
    quiet(
        Command::new("apt-get")
            .args(&options)
            .arg("download")
            .args(&names)
            .current_dir(&packages),
    )?;
    let unfinished = root.with_extension("unfinished");
    for package in fs::read_dir(&packages)?.flatten() {
        extract(&package.path(), &unfinished)?;
    }
    fs::rename(&unfinished, &root).context("cannot rename the unpacked QEMU")?;
    fs::remove_dir_all(&packages).context("cannot remove the packages")?;
    Ok(root)
}

fn extract(package: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("cannot create {}", to.display()))?;
    quiet(
        Command::new("dpkg-deb")
            .arg("--extract")
            .args([package, to]),
    )
    .map(drop)
}
