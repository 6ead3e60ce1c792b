//! Is this machine able to run the agent? Each finding says what to do.

mod cgroup;
mod interfaces;
mod kernel;
mod leftovers;
mod privileges;
mod rivals;

use std::{fmt, path::Path};

use serde::Serialize;

use crate::latency::hardware::Interface;

/// How a finding ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Verdict {
    /// As it should be.
    Ok,
    /// The agent runs, but something will surprise.
    Warning,
    /// The agent cannot run.
    Failed,
}

/// One thing that was looked at.
#[derive(Clone, Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Finding {
    /// What was looked at.
    pub name: &'static str,
    /// How it ended.
    pub verdict: Verdict,
    /// What was found.
    pub found: String,
    /// What to do about it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub remedy: Option<String>,
}

impl Finding {
    fn ok(name: &'static str, found: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Ok,
            found: found.into(),
            remedy: None,
        }
    }

    fn warning(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Warning,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }

    fn failed(name: &'static str, found: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self {
            name,
            verdict: Verdict::Failed,
            found: found.into(),
            remedy: Some(remedy.into()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}: {}", self.name, self.found)?;
        if let Some(remedy) = &self.remedy {
            write!(formatter, "; {remedy}")?;
        }
        Ok(())
    }
}

/// Looks at everything; `cgroup` is the directory that the agent would attach to, if not the root,
/// `interfaces` are those of this network namespace.
pub fn all(cgroup: Option<&Path>, interfaces: &[Interface]) -> Vec<Finding> {
    let mut findings = vec![kernel::version(), privileges::privileges(), kernel::btf()];
    findings.extend(kernel::build_options());
    findings.push(kernel::bpf_filesystem());
    findings.extend(cgroup::cgroup(cgroup));
    findings.push(privileges::open_files());
    findings.extend(interfaces::interfaces(interfaces));
    if findings
        .iter()
        .all(|finding| finding.verdict != Verdict::Failed)
    {
        findings.push(kernel::programs_load());
        let attached = rivals::attached(cgroup);
        findings.extend(leftovers::leftovers(&attached));
        findings.extend(rivals::rivals(&attached));
    }
    findings
}

/// What `run` cannot do without, cheap enough to look at on every start: the first failure.
pub fn requirements_of_run() -> anyhow::Result<()> {
    [kernel::version(), privileges::privileges(), kernel::btf()]
        .iter()
        .find(|finding| finding.verdict == Verdict::Failed)
        .map_or(Ok(()), |finding| Err(anyhow::anyhow!("{finding}")))
}
