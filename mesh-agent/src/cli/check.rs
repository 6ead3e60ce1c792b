//! `mesh-agent check`: is this machine able to run the agent?

use std::{path::PathBuf, process::ExitCode};

use clap::Args;

use super::{Output, output};
use crate::{
    check::{self, Finding, Verdict},
    config::{self, CgroupPath},
    latency::hardware::Interface,
};

/// Can this machine run the agent? Names what is missing and what to do.
#[derive(Debug, Args)]
pub struct Check {
    /// Also check for the cgroup that this configuration file names.
    #[arg(long, short, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Lines for people, or JSON for programs.
    #[arg(long, short, value_enum, default_value_t)]
    output: Output,
}

impl Check {
    /// Prints the findings; fails if one of them keeps the agent from running.
    pub fn run(&self) -> ExitCode {
        // Without them the agent can do what else it does.
        let interfaces = Interface::all().unwrap_or_default();
        match self.findings(&interfaces) {
            Ok(findings) => {
                let failed = findings
                    .iter()
                    .any(|finding| finding.verdict == Verdict::Failed);
                let printed = match self.output {
                    Output::Json => output::json(&serde_json::json!({
                        "able": !failed,
                        "findings": findings,
                        "interfaces": interfaces,
                    })),
                    Output::Table => print(&findings, failed),
                };
                if failed || printed.is_err() {
                    ExitCode::FAILURE
                } else {
                    ExitCode::SUCCESS
                }
            }
            Err(error) => {
                output::error(&error);
                ExitCode::FAILURE
            }
        }
    }

    fn findings(&self, interfaces: &[Interface]) -> anyhow::Result<Vec<Finding>> {
        let cgroup = match &self.config {
            Some(path) => match config::load(path)?.config.agent.cgroup {
                CgroupPath::Auto => None,
                CgroupPath::Path(path) => Some(path),
            },
            None => None,
        };
        Ok(check::all(cgroup.as_deref(), interfaces))
    }
}

fn print(findings: &[Finding], failed: bool) -> std::io::Result<()> {
    for finding in findings {
        let mark = match finding.verdict {
            Verdict::Ok => "ok",
            Verdict::Warning => "warning",
            Verdict::Failed => "FAILED",
        };
        output::line(&format!("{mark:<9}{:<22}{}", finding.name, finding.found))?;
        if let Some(remedy) = &finding.remedy {
            output::line(&format!("{:<31}-> {remedy}", ""))?;
        }
    }
    output::line("")?;
    output::line(if failed {
        "This machine cannot run mesh-agent yet: see the lines marked FAILED."
    } else {
        "This machine can run mesh-agent."
    })
}
