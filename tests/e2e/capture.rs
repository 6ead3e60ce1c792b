//! Real clients are captured: the kernel's map holds where they wanted to go, they reach it, and
//! neither they nor the server notice.

use std::fs;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use mesh_tests::{Node, original_destination, program, python, scenario};
use serde_json::Value;

use crate::peers::{CLIENT, CLIENT6, SERVER, SERVER6, http};

const PORT: u16 = 8080;
const BOUND: Duration = Duration::from_secs(30);

/// Starts `client` with the URL of a request that the server holds back, looks at the map while it waits, and gives
/// what the client printed once it is let go.
fn captured(node: &Node, host: &str, client: impl FnOnce(String) -> Vec<String>) -> Result<String> {
    let app = node.pod("client", CLIENT, Some(CLIENT6))?;
    let server = node.pod("server", SERVER, Some(SERVER6))?;
    let http = http(&server, PORT)?;
    let agent = node.agent(&node.config().pod(&app))?;

    let request = app.spawn(client(format!("http://{host}:{PORT}/hold")))?;
    let entries = agent
        .wait_captured()
        .with_context(|| request.stderr().unwrap_or_default())?;
    let destinations: Vec<_> = entries
        .iter()
        .map(original_destination)
        .collect::<Result<_>>()?;
    ensure!(
        destinations == [format!("{host}:{PORT}")],
        "origin_dst_map holds {destinations:?}"
    );
    let listed = agent.json("connections")?;
    ensure!(
        listed[0]["originalDestination"] == format!("{host}:{PORT}"),
        "`connections` lists {listed}"
    );
    ensure!(listed[0]["pod"] == "client", "`connections` lists {listed}");

    fs::write(&http.release, "")?;
    let output = request.finish(BOUND)?.success()?;
    agent.wait_idle()?;
    ensure!(agent.counter("redirected")? == 1, "{}", agent.status()?);
    Ok(output)
}

/// Checks that the server answered and saw the pod's own address.
fn ensure_answer(answer: &Value, client: &str) -> Result<()> {
    ensure!(answer["server"] == "server", "{answer}");
    let seen = answer["client"].as_str().unwrap_or_default();
    ensure!(
        seen.starts_with(&format!("{client}:")),
        "the server saw {seen}, not {client}"
    );
    Ok(())
}

#[test]
fn curl_is_captured_and_the_server_sees_the_pods_own_address() {
    scenario(|node| {
        let output = captured(node, SERVER, |url| {
            let format = "\n%{remote_ip}:%{remote_port}";
            ["curl", "-sS", "-m", "20", "-w", format, &url]
                .map(str::to_owned)
                .to_vec()
        })?;
        let (body, peer) = output.split_once('\n').context("curl printed one line")?;
        ensure_answer(&serde_json::from_str(body)?, CLIENT)?;
        ensure!(
            peer == format!("{SERVER}:{PORT}"),
            "curl says it is connected to {peer}"
        );
        Ok(())
    });
}

#[test]
fn curl_over_ipv6_is_captured() {
    scenario(|node| {
        let host = format!("[{SERVER6}]");
        let output = captured(node, &host, |url| {
            ["curl", "-sS", "-m", "20", &url]
                .map(str::to_owned)
                .to_vec()
        })?;
        ensure_answer(&serde_json::from_str(&output)?, &format!("[{CLIENT6}]"))
    });
}

#[test]
fn python_is_captured() {
    scenario(|node| {
        let output = captured(node, SERVER, |url| {
            let code = "import sys, urllib.request as r; print(r.urlopen(sys.argv[1], timeout=20).read().decode())";
            [python(), "-c", code, &url].map(str::to_owned).to_vec()
        })?;
        ensure_answer(&serde_json::from_str(&output)?, CLIENT)
    });
}

#[test]
fn node_is_captured_and_its_socket_names_the_server_it_asked_for() {
    scenario(|node| {
        let output = captured(node, SERVER, |url| {
            vec![
                "node".to_owned(),
                program("node_client.js").to_string_lossy().into_owned(),
                url,
            ]
        })?;
        let output: Value = serde_json::from_str(&output)?;
        ensure!(output["peer"] == format!("{SERVER}:{PORT}"), "{output}");
        ensure_answer(&output["body"], CLIENT)
    });
}

#[test]
fn java_is_captured_though_its_sockets_are_ipv6() {
    scenario(|node| {
        let output = captured(node, SERVER, |url| {
            vec![
                "java".to_owned(),
                program("JavaClient.java").to_string_lossy().into_owned(),
                url,
            ]
        })?;
        ensure_answer(&serde_json::from_str(&output)?, CLIENT)
    });
}

#[test]
fn nginx_serves_a_large_file_unchanged() {
    scenario(|node| {
        let app = node.pod("client", CLIENT, None)?;
        let server = node.pod("server", SERVER, None)?;
        let root = server.scratch("www");
        fs::create_dir(&root)?;
        let size = 32 << 20;
        let bytes: Vec<u8> = (0..size)
            .map(|n: u32| (n.wrapping_mul(2_654_435_761) >> 13) as u8)
            .collect();
        fs::write(root.join("file"), &bytes)?;
        let config = server.scratch("nginx.conf");
        let scratch = root.display();
        fs::write(
            &config,
            format!(
                "daemon off; pid {scratch}/nginx.pid; error_log stderr; events {{}}
                 http {{ access_log off; client_body_temp_path {scratch}/b; proxy_temp_path {scratch}/p;
                 fastcgi_temp_path {scratch}/f; uwsgi_temp_path {scratch}/u; scgi_temp_path {scratch}/s;
                 server {{ listen {PORT}; root {scratch}; }} }}"
            ),
        )?;
        // As root its workers change user, and the files are root's.
        let _nginx = server
            .spawn([
                "nginx",
                "-e",
                "stderr",
                "-g",
                "user root;",
                "-c",
                &config.to_string_lossy(),
            ])?
            .listening(PORT)?;
        let agent = node.agent(&node.config().pod(&app))?;
        let fetched = app.scratch("fetched");
        let url = format!("http://{SERVER}:{PORT}/file");
        app.run([
            "curl",
            "-sS",
            "-m",
            "30",
            "-o",
            &fetched.to_string_lossy(),
            &url,
        ])?
        .success()?;
        ensure!(fs::read(&fetched)? == bytes, "the file arrived changed");
        ensure!(agent.counter("redirected")? == 1);
        agent.wait_idle()
    });
}
