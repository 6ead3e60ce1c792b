//! Tunnels through servers that are forward proxies, on streams of HTTP/2. Those of HTTP/1 are in
//! `interim.rs`.

use anyhow::ensure;
use mesh_tests::{scenario, wait_until};
use serde_json::{Value, json};

use super::{BOUND, WEB, Web};
use crate::peers::{SERVER, at};

const PORT: u16 = 7010;

#[test]
fn streams_of_http2_become_tunnels_where_the_policy_allows_it() {
    scenario(|node| {
        let web = Web::new(node)?;
        let address = at(SERVER, PORT);
        let mut server = web
            .server
            .spawn_python("h2_connect.py", ["server", &address])?;
        server.wait_stdout("ready", BOUND)?;
        let config = |policy: &str| web.config(node, &[&address], policy);
        let ask = || -> anyhow::Result<Value> {
            web.client
                .python("h2_connect.py", ["client", &at(WEB, 80), "1"])?
                .json()
        };
        let agent = node.agent(&config("{}"))?;
        ensure!(ask()? == json!({"refused": true}));
        let own = &agent.json("destinations")?[0]["ownAnswers"];
        ensure!(own["connect_method"] == 1, "{own}");
        let allowed = "{allowConnect: true, retries: {}, timeouts: {request: 300ms}}";
        agent.rewrite_config(&config(allowed).to_yaml())?;
        let mut seen = Value::Null;
        wait_until(BOUND, "the new policy", || {
            seen = ask()?;
            Ok(seen["refused"].is_null())
        })?;
        // Byte by byte, and what the server says after the client's end comes as well.
        let expected = json!([true, "bye 3000000", "end"]);
        ensure!(seen["tunnel"] == expected, "{seen}");
        // A reset of one side is one of the other, for the same reason: INTERNAL_ERROR here, CANCEL there.
        ensure!(seen["reset"] == "reset 2", "{seen}");
        server.wait_stdout("reset 3 8", BOUND)?;
        Ok(())
    });
}
