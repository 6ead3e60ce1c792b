//! Servers that most tests need.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use mesh_tests::{Pod, Process};

/// Address of the enrolled client in most tests.
pub const CLIENT: &str = "10.77.0.2";
/// Its IPv6 address.
pub const CLIENT6: &str = "fd77::2";
/// Address of the server in most tests.
pub const SERVER: &str = "10.77.0.10";
/// Its IPv6 address.
pub const SERVER6: &str = "fd77::10";

/// Address of a second server.
pub const OTHER: &str = "10.77.0.11";
/// Its IPv6 address.
pub const OTHER6: &str = "fd77::11";

/// `host:port`, with brackets where the host is an IPv6 address.
pub fn at(host: &str, port: u16) -> String {
    if host.contains(':') {
        format!("[{host}]:{port}")
    } else {
        format!("{host}:{port}")
    }
}

/// Starts `behaviours.py` in a pod: one behaviour a port, as in `7001=identity`.
pub fn behaviours(pod: &Pod, ports: &[&str]) -> Result<Process> {
    let mut args = vec![pod.name()];
    args.extend(ports);
    let mut server = pod.spawn_python("behaviours.py", args)?;
    for port in ports {
        let port = port.split('=').next().context("no port")?.parse()?;
        server = server.listening(port)?;
    }
    Ok(server)
}

/// An HTTP server that tells who it is, and the file whose existence lets `/hold` answer.
pub struct HttpServer {
    /// Create it and every request for `/hold` is answered.
    pub release: PathBuf,
    _process: Process,
}

/// Starts `http_identity.py` in a pod on `port`.
pub fn http(pod: &Pod, port: u16) -> Result<HttpServer> {
    let release = pod.scratch("release");
    let process = pod
        .spawn_python(
            "http_identity.py",
            [pod.name(), &port.to_string(), &release.to_string_lossy()],
        )?
        .listening(port)?;
    Ok(HttpServer {
        release,
        _process: process,
    })
}

/// Starts nginx in a pod, with its files in `directory`: it answers with protocol and host, and below `/file` with
/// what is there. `listen` is its port, and what it speaks.
pub fn nginx(pod: &Pod, directory: &Path, listen: &str) -> Result<Process> {
    std::fs::create_dir_all(directory)?;
    let d = directory.display();
    let file = directory.join("nginx.conf");
    std::fs::write(
        &file,
        format!(
            "daemon off; master_process off; pid {d}/pid; error_log {d}/error.log;\n\
             events {{}}\nhttp {{ access_log off; client_body_temp_path {d}/b; keepalive_requests 10000000; \
             proxy_temp_path {d}/p; fastcgi_temp_path {d}/f; uwsgi_temp_path {d}/u; \
             scgi_temp_path {d}/s; server {{ listen {listen}; root {d}; \
             location / {{ return 200 \"$server_protocol $http_host\"; }} location /file {{ }} }} }}"
        ),
    )?;
    let error = directory.join("error.log");
    let (error, file) = (error.to_string_lossy(), file.to_string_lossy());
    pod.spawn(["nginx", "-e", &*error, "-c", &*file])
}
