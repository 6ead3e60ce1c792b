//! What the agent would advise.

use anyhow::ensure;
use mesh_tests::{scenario, wait_until};
use serde_json::Value;

use super::{BOUND, PORT, SERVER, WEB, Web};
use crate::peers::at;

#[test]
fn advice_comes_from_what_was_seen_and_can_be_pasted() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{}")?;
        ensure!(
            agent
                .verb(["advise", "web"])?
                .contains("nothing was answered yet")
        );
        let url = format!("http://{WEB}/slow?ms=2&n=[1-1200]");
        let parallel = [
            "curl",
            "-sS",
            "-Z",
            "--parallel-max",
            "8",
            "-o",
            "/dev/null",
            &url,
        ];
        web.client.run(parallel)?.success()?;
        let advice = agent.verb(["advise", "web"])?;
        ensure!(
            advice.contains("1200 requests") && advice.contains("perTry:"),
            "{advice}"
        );
        let json: Value = serde_json::from_str(&agent.verb(["advise", "--output", "json"])?)?;
        let most = json[0]["advice"]["limits.requests"]["value"].as_u64();
        ensure!(most.is_some_and(|most| (10..=16).contains(&most)), "{json}");
        // What is printed is a policy.
        let indented = advice.replace('\n', "\n    ");
        let file = node.config().pod(&web.client).after(&format!(
            "destinations:\n  - name: web\n    addresses: [{WEB}]\n    port: 80\n    \
             endpoints: [{{address: '{}'}}]\n    {indented}",
            at(SERVER, PORT)
        ));
        agent.rewrite_config(&file.to_yaml())?;
        wait_until(BOUND, "the advice to be followed", || {
            Ok(agent.json("destinations")?[0]["limits"]["requests"].as_u64() == most)
        })?;
        let unknown = node.agent_verb(["advise", "nobody", "--admin-socket", "/nowhere"])?;
        ensure!(unknown.success().is_err());
        Ok(())
    });
}
