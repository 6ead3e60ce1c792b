//! One machine: the kernel, the first file system, and what it says.

use super::emulator::{self, Emulator};
use super::root::{self, pack};
use super::{directory, kernel_package::Kernel};
use anyhow::{Context, Result, bail};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Modules that the tests' networks and the agent need, in the order of their dependencies.
const MODULES: [&str; 7] = [
    "llc",
    "stp",
    "bridge",
    "veth",
    "tun",
    "inet_diag",
    "tcp_diag",
];

/// Modules of the emulated network cards.
const CARD_MODULES: [&str; 3] = ["dca", "i2c-algo-bit", "igb"];

/// What the machine runs.
pub struct Tests<'a> {
    /// Only tests with one of these in their name.
    pub filters: &'a [&'a str],
    /// Variables of their environment, each as `NAME=VALUE`.
    pub environment: &'a [String],
}

/// A machine that is ready to be started.
pub struct Machine {
    image: PathBuf,
    initial: PathBuf,
    memory: u32,
    /// The emulator of two network cards, if it has them.
    card: Option<Emulator>,
}

impl Machine {
    /// Puts this kernel's modules, the tests' names and their environment beside `root`.
    /// With `card` it has two network cards, and the tests of the library that need one.
    pub fn new(
        kernel: &Kernel,
        root: &Path,
        memory: u32,
        tests: &Tests<'_>,
        card: Option<Emulator>,
    ) -> Result<Self> {
        let directory = directory()?;
        let own = directory.join("own");
        if own.exists() {
            fs::remove_dir_all(&own).context("cannot remove the earlier machine's files")?;
        }
        fs::create_dir_all(own.join("modules")).context("cannot make the machine's files")?;
        let of_card: &[&str] = if card.is_some() { &CARD_MODULES } else { &[] };
        for (number, name) in MODULES.iter().chain(of_card).enumerate() {
            // What is no module is part of the kernel.
            if let Some(module) = kernel.module(name)? {
                // Two digits each: the shell sorts by name.
                let number = number + 10;
                fs::write(own.join(format!("modules/{number}-{name}.ko")), module)
                    .context("cannot write a module")?;
            }
        }
        fs::write(own.join("filters"), tests.filters.join(" ") + "\n")
            .context("cannot write the tests' names")?;
        let variables = tests.environment.iter();
        let lines: String = variables.flat_map(|line| [line.as_str(), "\n"]).collect();
        fs::write(own.join("environment"), lines).context("cannot write the tests' environment")?;
        if card.is_some() {
            root::strip(&root::program("mesh-agent", "card")?, &own.join("card"))?;
        }
        let archive = directory.join("own.cpio");
        pack(&own, &archive)?;
        let initial = directory.join(format!("{}.initrd", kernel.release()));
        let mut joined =
            fs::File::create(&initial).context("cannot write the first file system")?;
        for part in [root, archive.as_path()] {
            io::copy(&mut fs::File::open(part)?, &mut joined).context("cannot join archives")?;
        }
        Ok(Self {
            image: kernel.image()?,
            initial,
            memory,
            card,
        })
    }

    /// Starts it. Its console is the command's output.
    pub fn command(&self) -> Command {
        let installed = Emulator::installed();
        let mut qemu = self.card.as_ref().unwrap_or(&installed).command();
        if self.card.is_some() {
            qemu.args(emulator::cards());
        }
        qemu.args(["-accel", "tcg,thread=multi", "-smp", "2"])
            // Emulated by several threads, QEMU 7.2 returns wrong flags from cmpxchg16b, which Linux
            // 6.12 allocates memory with.
            .args(["-cpu", "max,-cx16"])
            .args(["-m", &self.memory.to_string()])
            .args(["-nodefaults", "-nographic", "-no-reboot", "-nic", "none"])
            .args(["-serial", "stdio"])
            .args(["-append", "console=ttyS0 quiet panic=-1"])
            .arg("-kernel")
            .arg(&self.image)
            .arg("-initrd")
            .arg(&self.initial);
        qemu
    }
}

/// What the tests came to, from the console's text.
pub fn verdict(console: &str) -> Result<String> {
    let said = |text: &str| {
        console
            .lines()
            .filter_map(|line| line.split_once(text))
            .next_back()
    };
    let Some((_, booted)) = said("VM: Linux ") else {
        bail!("it did not boot:\n{}", last_lines(console));
    };
    let Some((_, ended)) = said("VM: tests ended with ") else {
        bail!("it ended before the tests did:\n{}", last_lines(console));
    };
    // One for each program of tests.
    let results: Vec<&str> = console
        .lines()
        .filter_map(|line| Some(line.split_once("test result: ")?.1))
        .collect();
    if !ended.starts_with("0 ") {
        bail!("tests failed:\n{}", failures(console));
    }
    let passed = |result: &&str| result.split_whitespace().nth(1).is_some_and(|n| n != "0");
    if !results.iter().any(passed) {
        bail!("no test has such a name");
    }
    Ok(format!("{booted}; {}", results.join("; ")))
}

fn last_lines(console: &str) -> String {
    let lines: Vec<&str> = console.lines().collect();
    lines[lines.len().saturating_sub(40)..].join("\n")
}

/// From the first failure's report on.
fn failures(console: &str) -> String {
    let report = console
        .find("failures:")
        .map_or(console, |at| &console[at..]);
    report.lines().take(120).collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_console_is_judged_by_what_the_tests_came_to() {
        let booted = "VM: Linux 6.1.0, booted in 4.0 s\n";
        let result = "test result: ok. 5 passed; 0 failed; finished in 9s\n";
        let ended = |code| format!("VM: tests ended with {code} after 9 s\n");
        assert!(verdict(&format!("{booted}{result}{}", ended(0))).is_ok());
        let none = "test result: ok. 0 passed; 0 failed; finished in 0s\n";
        let second = format!("{booted}{none}{result}{}", ended(0));
        assert!(verdict(&second).unwrap().contains("5 passed"), "{second}");
        for bad in [
            String::new(),
            booted.to_owned(),
            format!("{booted}{result}"),
            format!("{booted}{result}{}", ended(101)),
            format!("{booted}test result: ok. 0 passed; 0 failed\n{}", ended(0)),
        ] {
            assert!(verdict(&bad).is_err(), "{bad}");
        }
    }
}
