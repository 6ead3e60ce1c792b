//! A destination that fails is left alone for a while, and let back step by step.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use mesh_tests::{Agent, scenario, wait_until};
use serde_json::Value;

use super::{BOUND, PORT, WEB, Web, asked};
use crate::peers::{SERVER, at};

const BREAKER: &str =
    "{breaker: {consecutive: 3, openFor: {base: 1s}, halfOpen: {steps: [0.5, 1.0], calls: 2}}}";

fn breaker(agent: &Agent) -> Result<Value> {
    Ok(agent.json("destinations")?[0]["breaker"].clone())
}

#[test]
fn it_opens_after_failures_and_closes_once_the_server_is_well() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, BREAKER)?;
        for _ in 0..3 {
            ensure!(web.status(&[], "/status?code=500")?.0 == 500);
        }
        let (status, reason) = web.status(&[], "/ok")?;
        ensure!(
            (status, &*reason) == (503, "breaker_open"),
            "{status} {reason}"
        );
        let form = "%header{retry-after} %header{x-mesh-no-retry}";
        let told = web.curl(&["-o", "/dev/null", "-w", form], "/ok")?;
        ensure!(told == "1 refused" || told == "2 refused", "{told}");
        ensure!(
            asked(&Web::log(&web.server)?, "/ok") == 0,
            "the server was asked"
        );
        let state = breaker(&agent)?;
        ensure!(state["state"] == "open" && state["trips"] == 1, "{state}");
        ensure!(state["probeInSeconds"].as_f64() <= Some(1.2), "{state}");
        ensure!(
            state["why"].as_str().is_some_and(|why| why.contains('3')),
            "{state}"
        );
        let table = agent.verb(["destinations"])?;
        ensure!(
            table.contains("breaker_open") && table.contains("in a row"),
            "{table}"
        );
        let metrics = agent.metrics()?;
        let line = r#"mesh_agent_breaker_state{destination="web"} 2"#;
        ensure!(
            metrics.lines().any(|it| it == line),
            "{line} is not in {metrics}"
        );
        // The server is well, and each step is passed by two calls.
        wait_until(BOUND, "it to close", || {
            let _status = web.status(&[], "/ok")?;
            Ok(breaker(&agent)?["state"] == "closed")
        })?;
        ensure!(web.status(&[], "/ok")?.0 == 200);
        agent.wait_idle()
    });
}

#[test]
fn it_opens_again_for_longer_while_the_server_fails() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{breaker: {consecutive: 2, openFor: {base: 300ms, max: 10s}}}";
        let agent = web.agent(node, policy)?;
        wait_until(BOUND, "it to open three times", || {
            let _status = web.status(&[], "/status?code=503")?;
            Ok(breaker(&agent)?["trips"].as_u64() >= Some(3))
        })?;
        let state = breaker(&agent)?;
        // 300 ms, 600 ms, then 1.2 s, give or take a fifth.
        ensure!(state["probeInSeconds"].as_f64() > Some(0.7), "{state}");
        Ok(())
    });
}

#[test]
fn slow_calls_open_it_and_a_spike_does_not() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{breaker: {slowCall: {threshold: 50ms, ratio: 0.5}, minimumCalls: 5, \
                      sustained: 1s, window: 3s}}";
        let agent = web.agent(node, policy)?;
        // Six at once, and nothing more for now.
        ensure!(web.statuses_at_once("/slow?ms=150", 6)? == [200; 6]);
        ensure!(breaker(&agent)?["state"] == "closed");
        ensure!(breaker(&agent)?["slow"] == 6, "{}", breaker(&agent)?);
        let begun = Instant::now();
        wait_until(BOUND, "it to open", || {
            let _statuses = web.statuses_at_once("/slow?ms=100", 4)?;
            Ok(breaker(&agent)?["state"] == "open")
        })?;
        ensure!(
            begun.elapsed() >= Duration::from_millis(800),
            "{:?}",
            begun.elapsed()
        );
        let why = breaker(&agent)?["why"].to_string();
        ensure!(why.contains("slow"), "{why}");
        Ok(())
    });
}

#[test]
fn what_a_client_gives_up_counts_as_nothing() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{breaker: {consecutive: 1, failureRatio: 0.1, minimumCalls: 1}}";
        let agent = web.agent(node, policy)?;
        for _ in 0..3 {
            let url = format!("http://{WEB}/hang");
            let given_up = web.client.run(["curl", "-sS", "--max-time", "0.3", &url])?;
            ensure!(given_up.success().is_err());
        }
        wait_until(BOUND, "the requests to be given up", || {
            Ok(agent.json("destinations")?[0]["active"] == 0)
        })?;
        let state = breaker(&agent)?;
        ensure!(
            state["state"] == "closed" && state["failed"] == 0,
            "{state}"
        );
        Ok(())
    });
}

#[test]
fn a_probe_that_hangs_is_known_sooner() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{breaker: {consecutive: 1, openFor: {base: 500ms}, halfOpen: {calls: 1, timeout: 200ms}}}";
        let agent = web.agent(node, policy)?;
        ensure!(web.status(&[], "/status?code=500")?.0 == 500);
        let mut probe = (0, String::new());
        let mut took = Duration::ZERO;
        wait_until(BOUND, "a probe", || {
            let begun = Instant::now();
            probe = web.status(&["--max-time", "10"], "/slow?ms=5000")?;
            took = begun.elapsed();
            Ok(probe.1 != "breaker_open")
        })?;
        ensure!(probe == (504, "per_try_timeout".to_owned()), "{probe:?}");
        ensure!(took < Duration::from_secs(3), "{took:?}");
        ensure!(breaker(&agent)?["trips"] == 2);
        Ok(())
    });
}

#[test]
fn calls_fail_in_their_trailers_too() {
    scenario(|node| {
        let web = Web::new(node)?;
        let mut grpc = web
            .server
            .spawn_python("grpc_server.py", [at("0.0.0.0", 7004)])?;
        grpc.wait_stdout("ready", BOUND)?;
        let policy = "{breaker: {consecutive: 4}}";
        let config = web.config(node, &[&at(SERVER, 7004)], policy);
        let agent = node.agent(&config)?;
        // UNAVAILABLE after an answer has begun.
        let calls = "import grpc,sys\n\
            channel = grpc.insecure_channel(sys.argv[1])\n\
            call = channel.unary_stream('/Test/abort')\n\
            for _ in range(6):\n\
            \x20   try: list(call(b'14'))\n\
            \x20   except grpc.RpcError as error: print(error.details())\n";
        let said = web
            .client
            .run([mesh_tests::python(), "-c", calls, &at(WEB, 80)])?
            .success()?;
        let said: Vec<&str> = said.lines().collect();
        ensure!(
            said[..4] == ["as asked"; 4] && said[4..] == ["breaker_open"; 2],
            "{said:?}"
        );
        ensure!(breaker(&agent)?["state"] == "open");
        Ok(())
    });
}

#[test]
fn connections_of_other_protocols_open_it_as_well() {
    scenario(|node| {
        let web = Web::new(node)?;
        let config = node.config().pod(&web.client).after(&format!(
            "destinations: [{{name: web, addresses: [{WEB}], protocol: tcp, \
             endpoints: [{{address: '{}'}}], policy: {{breaker: {{consecutive: 2}}}}}}]",
            at(SERVER, 1)
        ));
        let agent = node.agent(&config)?;
        let connect = "import socket,sys\n\
            try: print(len(socket.create_connection((sys.argv[1], 80), 5).recv(1)))\n\
            except OSError as error: print(error.errno)\n";
        for _ in 0..4 {
            web.client.run(["python3", "-c", connect, WEB])?.success()?;
        }
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["breaker"]["state"] == "open",
            "{destinations}"
        );
        ensure!(
            destinations[0]["ownAnswers"]["breaker_open"] == 2,
            "{destinations}"
        );
        ensure!(
            destinations[0]["endpoints"][0]["tries"] == 2,
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn one_that_only_observes_goes_through_its_states_and_refuses_nothing() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = BREAKER.replace("consecutive", "mode: observe, consecutive");
        let agent = web.agent(node, &policy)?;
        for _ in 0..3 {
            ensure!(web.status(&[], "/status?code=500")?.0 == 500);
        }
        ensure!(web.status(&[], "/ok")?.0 == 200);
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["breaker"]["state"] == "open",
            "{destinations}"
        );
        ensure!(
            destinations[0]["breaker"]["observes"] == true,
            "{destinations}"
        );
        ensure!(
            destinations[0]["wouldRefuse"]["breaker_open"] == 1,
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn a_throttle_refuses_more_the_more_fails_and_never_stops_asking() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{breaker: {throttle: {window: 10s}}}")?;
        for _ in 0..4 {
            web.statuses_at_once("/status?code=500", 50)?;
        }
        let log = Web::log(&web.server)?;
        let sent = asked(&log, "/status");
        ensure!((2..120).contains(&sent), "{sent} of 200 were sent");
        let destinations = agent.json("destinations")?;
        let refused = destinations[0]["ownAnswers"]["throttled"].as_u64();
        ensure!(refused == Some(200 - sent), "{destinations}");
        ensure!(
            destinations[0]["throttled"].as_f64() > Some(0.9),
            "{destinations}"
        );
        // It is well again, and found out.
        wait_until(BOUND * 2, "requests to be let through", || {
            let statuses = web.statuses_at_once("/ok?a", 50)?;
            Ok(statuses.iter().all(|status| *status == 200))
        })?;
        ensure!(asked(&Web::log(&web.server)?, "/ok") > 0);
        ensure!(PORT > 0);
        Ok(())
    });
}
