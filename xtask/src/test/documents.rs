//! Checks README.md and docs/: links lead somewhere, and every complete configuration shown is one
//! that the agent accepts.

use crate::workspace;
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Checks all documents. Without an agent the configurations are left unchecked.
pub fn check(agent: Option<&Path>) -> Result<()> {
    let mut problems = Vec::new();
    for document in documents()? {
        let text = fs::read_to_string(&document)
            .with_context(|| format!("cannot read {}", document.display()))?;
        let name = document
            .strip_prefix(workspace::root())
            .unwrap_or(&document)
            .display();
        let blocks = fenced_blocks(&text);
        for link in broken_links(&document, &text) {
            problems.push(format!("{name}: link to {link} leads nowhere"));
        }
        for (line, configuration) in blocks
            .iter()
            .filter(|block| block.is_configuration())
            .map(|block| (block.line, &block.text))
        {
            if let Some(agent) = agent
                && let Err(error) = validate(agent, configuration)
            {
                problems.push(format!("{name}:{line}: {error:#}"));
            }
        }
    }
    if !problems.is_empty() {
        bail!("{}", problems.join("\n"));
    }
    Ok(())
}

fn documents() -> Result<Vec<PathBuf>> {
    let mut documents = Vec::new();
    for directory in [workspace::root().to_owned(), workspace::root().join("docs")] {
        // docs/ may not be there in a stripped checkout; the root is.
        for entry in fs::read_dir(&directory).into_iter().flatten() {
            let path = entry.context("cannot list documents")?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                documents.push(path);
            }
        }
    }
    documents.sort();
    Ok(documents)
}

/// A fenced code block.
struct Block {
    /// Line of its fence, from 1.
    line: usize,
    language: String,
    text: String,
}

impl Block {
    /// A whole file for the agent, not an excerpt.
    fn is_configuration(&self) -> bool {
        self.language == "yaml" && self.text.lines().any(|line| line == "pods:")
    }
}

fn fenced_blocks(text: &str) -> Vec<Block> {
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (index, line) in text.lines().enumerate() {
        match (line.strip_prefix("```"), &mut open) {
            (Some(language), None) => {
                let language = language.trim().to_owned();
                open = Some(Block {
                    line: index + 1,
                    language,
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (None, Some(block)) => {
                block.text.push_str(line);
                block.text.push('\n');
            }
            (None, None) => {}
        }
    }
    blocks
}

/// Links to files of this repository that do not exist, or to headings that are not there.
fn broken_links(document: &Path, text: &str) -> Vec<String> {
    let prose = without_code(text);
    prose
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split_once(')').map(|(link, _)| link.trim()))
        .filter(|link| !link.contains("://") && !link.starts_with("mailto:"))
        .filter(|link| !leads_somewhere(document, text, link))
        .map(str::to_owned)
        .collect()
}

fn leads_somewhere(document: &Path, text: &str, link: &str) -> bool {
    let (file, heading) = link.split_once('#').unwrap_or((link, ""));
    if file.is_empty() {
        return has_heading(text, heading);
    }
    let target = document.with_file_name(file);
    if heading.is_empty() {
        return target.exists();
    }
    fs::read_to_string(target).is_ok_and(|text| has_heading(&text, heading))
}

fn has_heading(text: &str, anchor: &str) -> bool {
    without_code(text)
        .lines()
        .filter(|line| line.starts_with('#'))
        .any(|line| anchor_of(line.trim_start_matches('#')) == anchor)
}

/// The anchor that repository hosts give a heading.
fn anchor_of(heading: &str) -> String {
    heading
        .trim()
        .to_lowercase()
        .chars()
        .filter(|character| character.is_alphanumeric() || " -_".contains(*character))
        .map(|character| if character == ' ' { '-' } else { character })
        .collect()
}

fn without_code(text: &str) -> String {
    let mut inside = false;
    let prose = text.lines().filter(|line| {
        let fence = line.starts_with("```");
        inside ^= fence;
        !inside && !fence
    });
    prose.flat_map(|line| [line, "\n"]).collect()
}

fn validate(agent: &Path, configuration: &str) -> Result<()> {
    let file = workspace::target_dir()?.join("xtask/documented.yaml");
    fs::write(&file, configuration).with_context(|| format!("cannot write {}", file.display()))?;
    let output = Command::new(agent)
        .arg("validate")
        .arg(&file)
        .output()
        .context("cannot start the agent")?;
    if !output.status.success() {
        bail!(
            "the agent refuses it: {}",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_into_nowhere_is_found_and_code_is_not_searched() {
        let text = "# One two\n[a](#one-two) [b](gone.md)\n```\n[c](also-gone.md)\n```\n";
        let here = workspace::root().join("README.md");
        assert_eq!(broken_links(&here, text), ["gone.md"]);
    }

    #[test]
    fn a_link_to_a_missing_heading_is_found() {
        let text = "# One two\n[a](#three)\n";
        assert_eq!(broken_links(Path::new("README.md"), text), ["#three"]);
    }

    #[test]
    fn only_whole_files_count_as_configuration() {
        let text = "```yaml\nagent:\n```\ntext\n```yaml\npods:\n  - name: a\n```\n";
        let blocks = fenced_blocks(text);
        assert_eq!(blocks.len(), 2);
        assert!(!blocks[0].is_configuration());
        assert!(blocks[1].is_configuration());
        assert_eq!(blocks[1].line, 5);
        assert_eq!(blocks[1].text, "pods:\n  - name: a\n");
    }
}
