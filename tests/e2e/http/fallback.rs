//! What is answered instead of a refusal or a failure.

use anyhow::ensure;
use mesh_tests::scenario;

use super::{PORT, WEB, Web};
use crate::peers::{OTHER, SERVER, at};

#[test]
fn an_answer_of_the_policy_stands_for_a_failure_and_says_so() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{breaker: {consecutive: 2}, \
                      fallback: {status: 203, headers: {x-kind: old}, body: '[]'}}";
        let agent = web.agent(node, policy)?;
        let form = "%{http_code} %header{x-mesh-degraded} %header{x-kind} ";
        for (path, why) in [
            ("/status?code=500", "failed"),
            ("/reset", "upstream_reset"),
            ("/ok", "breaker_open"),
        ] {
            let answer = web.curl(&["-w", form], path)?;
            ensure!(answer == format!("[]203 {why} old "), "{path}: {answer}");
        }
        let destinations = agent.json("destinations")?;
        ensure!(destinations[0]["degraded"] == 3, "{destinations}");
        ensure!(
            destinations[0]["ownAnswers"]["breaker_open"] == 1,
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn another_destination_stands_in_with_the_same_request() {
    scenario(|node| {
        let web = Web::new(node)?;
        let config = node.config().pod(&web.client).after(&format!(
            "destinations:\n\
             - {{name: web, addresses: [{WEB}], port: 80, endpoints: [{{address: '{}'}}], \
                 policy: {{retries: {{attempts: 1}}, fallback: {{destination: spare}}}}}}\n\
             - {{name: spare, endpoints: [{{address: '{}'}}]}}",
            at(SERVER, 1),
            at(OTHER, PORT)
        ));
        let agent = node.agent(&config)?;
        let form = " %{http_code} %header{x-mesh-degraded}";
        let body = "x".repeat(20_000);
        let sum = web.curl(&["-d", &body, "-H", "Expect:", "-w", form], "/sum")?;
        ensure!(
            sum.starts_with("20000 ") && sum.ends_with(" 200 connect_failure"),
            "{sum}"
        );
        let answer = web.curl(&["-w", form], "/ok")?;
        ensure!(answer == "other 200 connect_failure", "{answer}");
        let destinations = agent.json("destinations")?;
        ensure!(destinations[0]["degraded"] == 2, "{destinations}");
        ensure!(destinations[1]["answered"]["2xx"] == 2, "{destinations}");
        // A server's own 4xx is an answer.
        let answer = web.curl(&["-w", form], "/status?code=404")?;
        ensure!(answer == "status 404 connect_failure", "{answer}");
        Ok(())
    });
}
