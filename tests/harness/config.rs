//! The agent's configuration as YAML text.

use std::fmt::Write;
use std::path::Path;

use crate::node::Node;
use crate::pod::Pod;

/// A configuration for the agent of one node.
#[derive(Clone)]
pub struct Config {
    agent: Vec<String>,
    pods: Vec<Vec<String>>,
    after: String,
}

impl Config {
    /// The node's cgroup, pins and admin socket; no metrics port, since all tests share the machine's loopback.
    pub(crate) fn new(node: &Node) -> Self {
        Self {
            agent: vec![
                format!("cgroup: {}", node.cgroup().display()),
                "metrics: off".to_owned(),
                format!("adminSocket: {}", node.dir().join("admin.sock").display()),
                format!("pinPath: {}", node.pin_path().display()),
            ],
            pods: Vec::new(),
            after: String::new(),
        }
    }

    /// Replaces or adds a line of the `agent` section, as in `drainTimeout: 1s`.
    #[must_use]
    pub fn agent(mut self, line: &str) -> Self {
        let key = line.split(':').next().unwrap_or_default().to_owned();
        self.agent
            .retain(|old| old.split(':').next() != Some(key.as_str()));
        self.agent.push(line.to_owned());
        self
    }

    /// Adds a pod with the defaults.
    #[must_use]
    pub fn pod(self, pod: &Pod) -> Self {
        self.pod_with(pod, &[])
    }

    /// Adds a pod with further lines, as in `onAgentDown: closed`.
    #[must_use]
    pub fn pod_with(self, pod: &Pod, lines: &[&str]) -> Self {
        self.pod_at(pod.name(), &pod.netns_path(), lines)
    }

    /// Adds a pod by the path of its namespace, which need not exist.
    #[must_use]
    pub fn pod_at(mut self, name: &str, netns: &Path, lines: &[&str]) -> Self {
        let mut pod = vec![
            format!("name: {name}"),
            format!("netns: {}", netns.display()),
        ];
        pod.extend(lines.iter().map(|&line| line.to_owned()));
        self.pods.push(pod);
        self
    }

    /// Adds lines after everything else, as in `destinations: []`.
    #[must_use]
    pub fn after(mut self, text: &str) -> Self {
        self.after.push_str(text);
        self.after.push('\n');
        self
    }

    /// The file's text.
    pub fn to_yaml(&self) -> String {
        let mut yaml = String::from("agent:\n");
        for line in &self.agent {
            let _ = writeln!(yaml, "  {line}");
        }
        yaml.push_str(if self.pods.is_empty() {
            "pods: []\n"
        } else {
            "pods:\n"
        });
        for pod in &self.pods {
            for (index, line) in pod.iter().enumerate() {
                let _ = writeln!(yaml, "  {} {line}", if index == 0 { "-" } else { " " });
            }
        }
        // An agent of a test leaves the machine's network cards alone.
        if !self.after.contains("latency:") {
            yaml.push_str("latency: {hardware: off}\n");
        }
        yaml + &self.after
    }
}
