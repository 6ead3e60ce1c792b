//! An agent with nothing to do does nothing.

use std::thread::sleep;
use std::time::Duration;

use anyhow::ensure;
use mesh_tests::{Scenario, say, wait_until};

use crate::peers::{CLIENT, OTHER};

/// How long it is observed.
const WINDOW: Duration = Duration::from_secs(5);

#[test]
fn an_idle_agent_uses_less_than_1_percent_of_a_processor() {
    Scenario::default().alone().run(|node| {
        let (first, second) = (
            node.pod("first", CLIENT, None)?,
            node.pod("second", OTHER, None)?,
        );
        let agent = node.agent(&node.config().pod(&first).pod(&second))?;
        // The start's own work is not idling.
        wait_until(Duration::from_secs(10), "the agent to come to rest", || {
            let before = agent.processor_time()?;
            sleep(Duration::from_millis(500));
            let used = agent.processor_time()?.saturating_sub(before);
            Ok(used < Duration::from_millis(10))
        })?;
        // What the machine's host does meanwhile may be counted as the agent's: of three windows one.
        let mut quiet = 0;
        for _ in 0..3 {
            let before = agent.processor_time()?;
            sleep(WINDOW);
            let used = agent.processor_time()?.saturating_sub(before);
            let share = used.as_secs_f64() / WINDOW.as_secs_f64();
            say(&format!("{:.3}% of a processor", share * 100.0));
            quiet += u32::from(used * 100 < WINDOW);
        }
        ensure!(quiet >= 2, "in {quiet} of 3 windows only");
        Ok(())
    });
}
