//! Generated requests, good and hostile, are answered as by the server itself, but for a list of
//! differences with their reasons (in the program).

use anyhow::ensure;
use mesh_tests::scenario;

use super::{BOUND, WEB, Web};
use crate::peers::{SERVER, at};

const PORT: u16 = 8088;
const REQUESTS: u32 = 5_000;

#[test]
fn five_thousand_requests_are_answered_as_by_the_server_itself() {
    scenario(|node| {
        let web = Web::new(node)?;
        let program = mesh_tests::program("echo_server.js");
        let port = PORT.to_string();
        let mut server = web.server.spawn([
            "node".as_ref(),
            program.as_os_str(),
            SERVER.as_ref(),
            port.as_ref(),
        ])?;
        server.wait_stdout("ready", BOUND)?;
        let config = node
            .config()
            .pod_with(&web.client, &[&format!("excludePorts: [{PORT}]")])
            .after(&format!(
                "destinations: [{{name: web, addresses: [{WEB}], port: 80, protocol: http1, \
                 endpoints: [{{address: '{}'}}]}}]",
                at(SERVER, PORT)
            ));
        let agent = node.agent(&config)?;
        let seed = std::env::var("MESH_SEED").unwrap_or_else(|_| "1".to_owned());
        let arguments = [at(SERVER, PORT), at(WEB, 80), seed, REQUESTS.to_string()];
        let outcome = web.client.python("differential.py", arguments)?.json()?;
        ensure!(outcome["unexplained"] == 0, "{outcome:#}");
        let found = |name: &str| outcome["found"][name].as_u64().unwrap_or(0);
        ensure!(found("same") > u64::from(REQUESTS) * 8 / 10, "{outcome}");
        ensure!(found("is_refused") > 100, "{outcome}");
        // Not one of them went past the agent.
        let answered = &agent.json("destinations")?[0]["answered"];
        let answers = answered.as_object().into_iter().flatten();
        let answers: u64 = answers.filter_map(|(_, count)| count.as_u64()).sum();
        ensure!(answers >= u64::from(REQUESTS), "{answered}");
        Ok(())
    });
}
