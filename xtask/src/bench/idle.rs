//! The memory of an agent that has many pods and nothing to do.

use super::workload::resident_memory;
use crate::lab::{self, Agent, Lab, PodEntry};
use anyhow::{Result, ensure};
use std::path::Path;
use std::thread;
use std::time::Duration;

/// How many pods are enrolled.
pub const PODS: usize = 100;
/// Long enough for buffers of the start to be given back, or not.
const SETTLE: Duration = Duration::from_secs(3);

/// Resident memory in MiB.
pub fn measure(lab: &Lab, binary: &Path) -> Result<f64> {
    let mut pods = Vec::with_capacity(PODS);
    for number in 0..PODS {
        let name = format!("idle-{number}");
        let namespace = lab.bare_namespace(&name)?;
        pods.push(PodEntry::new(
            &name,
            namespace,
            &["capture: {outbound: true}"],
        ));
    }
    let agent = Agent::start(lab, binary, &lab::configuration(lab, &pods))?;
    let enrolled = agent.status()?["pods"]["enrolled"].as_u64();
    ensure!(
        enrolled == Some(PODS as u64),
        "{enrolled:?} of {PODS} pods are enrolled"
    );
    thread::sleep(SETTLE);
    let memory = resident_memory(agent.pid())?;
    agent.terminate()?;
    Ok(memory)
}
