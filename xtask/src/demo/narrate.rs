//! How the demo speaks: headings, commands, their output, and what was checked. At most 100 columns.

use console::style;
use std::time::Duration;

const WIDTH: usize = 100;
const INDENT: usize = 2;

/// The title of a step.
pub fn heading(number: usize, title: &str) {
    let rule = "─".repeat(WIDTH.saturating_sub(title.chars().count() + 7));
    println!(
        "\n{} {} {}",
        style(format!("── {number}")).cyan(),
        style(title).bold(),
        style(rule).cyan()
    );
}

/// A sentence on what comes next.
pub fn note(text: &str) {
    println!("{text}");
}

/// A command and where it runs.
pub fn command(place: &str, line: &str) {
    println!("{} {} {line}", style(place).magenta(), style("$").dim());
}

/// Real output, set in. What goes beyond the width is cut, and the cut is marked.
pub fn lines(text: &str) {
    for line in text.trim_end().lines().map(str::trim_end) {
        let mut fitting: String = line.chars().take(WIDTH - INDENT).collect();
        if fitting.len() < line.len() {
            fitting.pop();
            fitting.push('…');
        }
        println!("{:INDENT$}{fitting}", "");
    }
}

/// Words, set in and wrapped.
pub fn words(words: &[String]) {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() && INDENT + line.len() + 1 + word.len() > WIDTH {
            lines(&line);
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line.push_str(word);
    }
    lines(&line);
}

/// Something that was claimed and held.
pub fn check(text: &str) {
    println!("{} {text}", style("✓").green().bold());
}

/// A duration as the demo writes them.
pub fn milliseconds(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1000.0)
}
