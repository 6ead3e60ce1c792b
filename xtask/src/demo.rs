//! demo
use anyhow::Result;
/// Runs the verb.
pub fn run() -> Result<()> {
    Ok(())
}
