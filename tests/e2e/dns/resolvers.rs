//! The resolvers that people use hear the same through the agent as without it.

use anyhow::{Result, ensure};
use mesh_tests::{Pod, program, scenario};

use super::{Place, dnsmasq, ensure_idle};
use crate::peers::{OTHER, OTHER6, SERVER, SERVER6};

/// A static program with musl's resolver, as in Alpine's containers.
fn musl_resolver(pod: &Pod) -> Result<String> {
    let output = pod.scratch("resolve");
    let output = output.to_string_lossy().into_owned();
    let source = program("resolve.c");
    let build = [
        "musl-gcc",
        "-static",
        "-o",
        &output,
        &source.to_string_lossy(),
    ];
    pod.run(build)?.success()?;
    Ok(output)
}

/// What the resolvers say, each on its own.
fn conversations(place: &Place) -> Result<Vec<String>> {
    let musl = musl_resolver(&place.client)?;
    let musl = musl.as_str();
    let mut said = Vec::new();
    let dig: &[&[&str]] = &[
        &["who.test", "A"],
        &["who.test", "AAAA"],
        &["who.test", "A", "+nocookie"],
        &["WhO.tESt", "A", "+nocookie"],
        &["deep.wild.test", "A", "+nocookie", "+noedns"],
        &["nothing.test", "A", "+nocookie"],
        &["who.test", "MX", "+nocookie"],
        &["_http._tcp.test", "SRV", "+nocookie", "+dnssec"],
        &["big.test", "TXT", "+nocookie", "+ignore", "+bufsize=1232"],
        &["big.test", "TXT", "+nocookie", "+bufsize=1232"],
        &["big.test", "TXT", "+nocookie", "+noedns"],
        &["who.test", "A", "+tcp"],
        &["who.test", "A", "+tcp", "+keepopen", "wild.test", "A"],
        &["who.test", "ANY", "+nocookie", "+notcp"],
    ];
    for host in [SERVER, SERVER6, OTHER, OTHER6] {
        for arguments in dig {
            let server = format!("@{host}");
            let mut argv = vec![
                "dig",
                &server,
                "+noall",
                "+comments",
                "+answer",
                "+authority",
            ];
            argv.extend(*arguments);
            let text = place.client.run(argv)?.success()?;
            said.push(format!("{host} {arguments:?}\n{}", without_ids(&text)));
        }
        for argv in [
            vec!["nslookup", "who.test", host],
            vec!["busybox", "nslookup", "who.test", host],
        ] {
            let text = place.client.run(&argv)?.success()?;
            // In the order of arrival: it asks for both families at once.
            let mut lines: Vec<&str> = text.lines().collect();
            lines.sort_unstable();
            said.push(format!("{argv:?}\n{}", lines.join("\n")));
        }
        let resolving: &[&[&str]] = &[
            &["getent", "ahosts", "who.test"],
            &["getent", "ahostsv4", "WHO.test"],
            &[musl, "who.test"],
        ];
        for argv in resolving {
            said.push(place.resolving(&[host], argv)?.0);
        }
    }
    // Two servers in one go.
    let (first, second) = (format!("@{SERVER}"), format!("@{OTHER6}"));
    let both = [
        "dig",
        &first,
        "who.test",
        "+short",
        &second,
        "deep.wild.test",
        "+short",
    ];
    said.push(place.client.run(both)?.success()?);
    // musl asks all its servers at once and takes the first answer.
    let (text, _) = place.resolving(&[SERVER, SERVER6], &[musl, "who.test"])?;
    said.push(text);
    let java = program("JavaResolver.java");
    let java = ["java", &java.to_string_lossy(), "who.test", SERVER];
    said.push(place.resolving(&[SERVER], &java)?.0);
    let python =
        "import socket\nprint(sorted({a[4][0] for a in socket.getaddrinfo('who.test', 80)}))";
    let node = "require('dns').resolve4('who.test', (e, a) => console.log(e, a))";
    for argv in [["python3", "-c", python], ["node", "-e", node]] {
        said.push(place.resolving(&[SERVER, OTHER], &argv)?.0);
    }
    Ok(said)
}

/// The output of dig without what differs from run to run: identifiers, cookies, how long a record
/// has been known, and the order of records, which dnsmasq turns.
fn without_ids(text: &str) -> String {
    let lines = text.lines().filter(|line| !line.contains("COOKIE"));
    let mut lines: Vec<String> = lines
        .map(|line| {
            if let Some((before, _)) = line.split_once(", id: ") {
                return before.to_owned();
            }
            let is_ttl = |word: &&str| word.parse::<u16>().is_ok_and(|ttl| ttl <= 300);
            let mut words: Vec<&str> = line.split_whitespace().collect();
            if let Some(word) = words.get_mut(1).filter(|word| is_ttl(word)) {
                *word = "TTL";
            }
            words.join(" ")
        })
        .collect();
    lines.sort();
    lines.join("\n")
}

#[test]
fn resolvers_hear_the_same_through_the_agent_as_without_it() {
    scenario(|node| {
        let place = Place::new(node)?;
        let _server = dnsmasq(&place.server, "10")?;
        let _other = dnsmasq(&place.other, "11")?;
        let without = conversations(&place)?;
        let agent = place.agent(node, &[])?;
        // Twice: the second time many answers come from the agent's own.
        for _ in 0..2 {
            for (expected, heard) in without.iter().zip(conversations(&place)?) {
                ensure!(
                    heard == *expected,
                    "without the agent:\n{expected}\nthrough it:\n{heard}"
                );
            }
        }
        ensure!(agent.counter("datagramsRedirected")? > 100);
        ensure_idle(&agent)
    });
}
