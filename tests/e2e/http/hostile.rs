//! Requests that two programs might read in two ways are refused, with the reason, and go no further.

use std::time::Instant;

use anyhow::ensure;
use mesh_tests::scenario;

use super::{Web, asked};

#[test]
fn what_can_be_understood_in_two_ways_is_refused_and_not_passed_on() {
    scenario(|node| {
        let web = Web::new(node)?;
        let agent = web.agent(node, "{retries: {}}")?;
        let line = "POST /never HTTP/1.1\\r\\n";
        let host = "Host: a\\r\\n";
        let smuggled = "0\\r\\n\\r\\nGET /never HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n";
        let many = "X-Many: 1\\r\\n".repeat(200);
        let cases = [
            (
                format!(
                    "{line}{host}Content-Length: 4\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n{smuggled}"
                ),
                "400 malformed_length_and_chunked",
            ),
            (
                format!(
                    "{line}{host}Transfer-Encoding: chunked\\r\\nContent-Length: 4\\r\\n\\r\\n{smuggled}"
                ),
                "400 malformed_length_and_chunked",
            ),
            (
                format!("{line}{host}Content-Length: 4\\r\\nContent-Length: 4\\r\\n\\r\\nabcd"),
                "400 malformed_content_length",
            ),
            (
                format!("{line}{host}Content-Length: +4\\r\\n\\r\\nabcd"),
                "400 malformed_content_length",
            ),
            (
                format!("{line}{host}Transfer-Encoding: chunked, identity\\r\\n\\r\\n"),
                "400 malformed_transfer_encoding",
            ),
            (format!("{line}Host: a\\n\\r\\n"), "400 malformed_line_end"),
            (
                format!("{line}{host}X: a\\r\\n b\\r\\n\\r\\n"),
                "400 malformed_folded_header",
            ),
            (
                format!("{line}{host}X : a\\r\\n\\r\\n"),
                "400 malformed_header",
            ),
            (
                format!("{line}{host}X: a\\x00\\r\\n\\r\\n"),
                "400 malformed_header",
            ),
            (format!("{line}{host}{host}\\r\\n"), "400 malformed_host"),
            (format!("{line}\\r\\n"), "400 malformed_host"),
            (format!("{line}{host}{many}\\r\\n"), "431 headers_too_large"),
        ];
        for (request, expected) in &cases {
            // After a good one on the same connection, whose answer must come first.
            let good = "GET /slow?ms=50 HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n";
            let heard = web.raw(&[&format!("{good}{request}")])?;
            let mut answers = heard.split("HTTP/1.1 ").skip(1);
            let (first, second) = (answers.next(), answers.next());
            let reason = second.and_then(|answer| {
                let reason = answer.split("x-mesh-reason: ").nth(1)?.lines().next()?;
                Some(format!("{} {reason}", &answer[..3]))
            });
            ensure!(
                first.is_some_and(|it| it.starts_with("200")),
                "{request}: {heard}"
            );
            ensure!(reason.as_deref() == Some(*expected), "{request}: {heard}");
            ensure!(answers.next().is_none(), "{request}: {heard}");
        }
        // In the middle of a body.
        let head = "PUT /never2 HTTP/1.1\\r\\nHost: a\\r\\nTransfer-Encoding: chunked\\r\\n\\r\\n5\\r\\nhello\\r\\n";
        for chunk in ["g\\r\\n", "-1\\r\\n", "5\\nhello", "3\\r\\nhello\\r\\n"] {
            let heard = web.raw(&["--wait", "0.1", head, chunk])?;
            ensure!(
                heard.starts_with("HTTP/1.1 400") || heard == "<reset>",
                "{chunk}: {heard}"
            );
            ensure!(!heard.contains("200"), "{chunk}: {heard}");
        }
        let log = Web::log(&web.server)?;
        ensure!(asked(&log, "/never") == 0, "{log}");
        // An answer to HEAD has no body, whoever gives it.
        for (method, has_body) in [("GET", true), ("HEAD", false)] {
            let heard = web.raw(&[&format!("{method} /#a HTTP/1.1\\r\\n{host}\\r\\n")])?;
            let body = heard.split_once("\r\n\r\n").map(|(_, body)| body.trim());
            ensure!(heard.starts_with("HTTP/1.1 400"), "{method}: {heard}");
            ensure!(
                body.is_some_and(|it| it.is_empty() != has_body),
                "{method}: {heard}"
            );
        }
        let own = &agent.json("destinations")?[0]["ownAnswers"];
        ensure!(own["malformed_length_and_chunked"] == 2, "{own}");
        Ok(())
    });
}

#[test]
fn a_head_that_never_ends_is_cut() {
    scenario(|node| {
        let web = Web::new(node)?;
        let _agent = web.agent(node, "{}")?;
        let begun = Instant::now();
        let script = format!(
            "import socket,time\nc=socket.create_connection(('{}',80))\nc.settimeout(0.9)\n\
             c.sendall(b'GET / HTTP/1.1\\r\\n')\nanswer=b''\n\
             for n in range(60):\n  c.sendall(b'X: y\\r\\n')\n  \
             try:\n    answer=c.recv(999)\n    break\n  except TimeoutError: pass\nprint(answer.decode())",
            super::WEB
        );
        let text = web.client.run(["python3", "-c", &script])?.success()?;
        ensure!(
            text.contains("408") && text.contains("head_timeout"),
            "{text}"
        );
        ensure!(
            (25..45).contains(&begun.elapsed().as_secs()),
            "{:?}",
            begun.elapsed()
        );
        Ok(())
    });
}
