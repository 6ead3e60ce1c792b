//! What the agent says of the kernel that it finds. `cargo xtask vm` runs this on others.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use mesh_tests::agent_binary;

/// Programs on cgroups can refuse a connect since then.
const OLDEST_POSSIBLE: (u32, u32) = (5, 18);

fn version() -> Result<(u32, u32)> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let mut numbers = release
        .split(|character: char| !character.is_ascii_digit())
        .filter_map(|number| number.parse().ok());
    numbers.next().zip(numbers.next()).context("no version")
}

#[test]
fn an_unsupported_kernel_gets_one_clear_line_and_a_supported_one_none() -> Result<()> {
    let file = std::env::temp_dir().join(format!("kernels-{}.yaml", std::process::id()));
    let socket = file.with_extension("sock");
    let bad_cgroup = "/nonexistent/cgroup";
    std::fs::write(
        &file,
        format!(
            "agent: {{cgroup: {bad_cgroup}, metrics: off, adminSocket: {}}}\n",
            socket.display()
        ),
    )?;
    let run = Command::new(agent_binary()?)
        .args(["run", "--config"])
        .arg(&file)
        .output();
    std::fs::remove_file(&file)?;
    let run = run?;
    let said = String::from_utf8_lossy(&run.stderr);
    ensure!(!run.status.success(), "{said}");
    let lines: Vec<&str> = said.lines().collect();
    ensure!(lines.len() == 1, "{said}");
    let (major, minor) = version()?;
    if (major, minor) < OLDEST_POSSIBLE {
        ensure!(
            said.contains("too old") && said.contains("run a kernel of 6.1 or later"),
            "{said}"
        );
    } else {
        // It went on to what is really wrong.
        ensure!(said.contains(bad_cgroup), "{said}");
    }
    Ok(())
}
