//! No more requests or connections at once than the policy allows.

use std::time::Instant;

use anyhow::ensure;
use mesh_tests::scenario;

use super::Web;

#[test]
fn so_many_requests_are_under_way_and_no_more() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{limits: {requests: 3}}")?;
        let statuses = web.statuses_at_once("/slow?ms=700", 6)?;
        ensure!(statuses == [200, 200, 200, 503, 503, 503], "{statuses:?}");
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["ownAnswers"]["request_limit"] == 3,
            "{destinations}"
        );
        ensure!(destinations[0]["limits"]["requests"] == 3, "{destinations}");
        // Those that ended made room.
        let statuses = web.statuses_at_once("/slow?ms=100", 3)?;
        ensure!(statuses == [200; 3], "{statuses:?}");
        Ok(())
    });
}

#[test]
fn requests_wait_for_a_connection_and_no_more_than_may() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{limits: {connections: 2, pending: 2}}";
        let agent = web.agent(node, policy)?;
        let begun = Instant::now();
        let statuses = web.statuses_at_once("/slow?ms=500", 6)?;
        ensure!(statuses == [200, 200, 200, 200, 503, 503], "{statuses:?}");
        ensure!(begun.elapsed().as_millis() >= 1000, "two had to wait");
        let destinations = agent.json("destinations")?;
        ensure!(
            destinations[0]["ownAnswers"]["connection_limit"] == 2,
            "{destinations}"
        );
        let used = &destinations[0]["limits"]["connections"];
        ensure!(
            used["used"] == 0 && used["most"] == 2 && used["waiting"] == 0,
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn who_waits_too_long_for_a_connection_is_refused() {
    scenario(|node| {
        let web = Web::new(node)?;
        let policy = "{timeouts: {connect: 200ms}, limits: {connections: 1}}";
        let _agent = web.agent(node, policy)?;
        let statuses = web.statuses_at_once("/slow?ms=1000", 3)?;
        ensure!(statuses == [200, 503, 503], "{statuses:?}");
        Ok(())
    });
}

#[test]
fn an_adaptive_limit_finds_what_the_server_can_do() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{limits: {adaptive: {min: 2, max: 50}}}")?;
        for _ in 0..20 {
            web.statuses_at_once("/slow?ms=20", 10)?;
        }
        let destinations = agent.json("destinations")?;
        let most = destinations[0]["limits"]["requests"].as_u64();
        ensure!(
            most.is_some_and(|it| (2..=50).contains(&it)),
            "{destinations}"
        );
        ensure!(
            destinations[0]["answered"]["2xx"].as_u64() > Some(100),
            "{destinations}"
        );
        Ok(())
    });
}

#[test]
fn an_upgraded_connection_is_in_use_to_its_end() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{limits: {connections: 1, pending: 0}}")?;
        let hold = "import socket,sys,time\n\
            c = socket.create_connection((sys.argv[1], 80), 5)\n\
            c.sendall(b'GET /echo HTTP/1.1\\r\\nHost: a\\r\\nConnection: Upgrade\\r\\nUpgrade: test\\r\\n\\r\\n')\n\
            print(c.recv(12).decode(), flush=True)\n\
            time.sleep(60)\n";
        let mut upgraded = web.client.spawn(["python3", "-c", hold, super::WEB])?;
        upgraded.wait_stdout("HTTP/1.1 101", super::BOUND)?;
        let (status, reason) = web.status(&[], "/ok")?;
        ensure!(
            (status, &*reason) == (503, "connection_limit"),
            "{status} {reason}"
        );
        upgraded.kill()?;
        mesh_tests::wait_until(super::BOUND, "the connection to be free", || {
            Ok(web.status(&[], "/ok")?.0 == 200)
        })
    });
}
