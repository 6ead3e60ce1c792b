//! Inbound capture of one pod: what steers, and the servers that were found listening.

use std::{collections::HashSet, io, os::fd::AsFd as _, path::Path, sync::Arc};

use mesh_common::{INBOUND_PORT, OUTBOUND_PORT};

use super::{Netns, listening::listening};
use crate::{
    config::Pod,
    kernel::{KernelError, Maps, Server, Steering},
};

/// Inbound capture of one pod. Dropped, it ends.
#[derive(Debug)]
pub(super) struct Inbound {
    /// Its drop ends the capture.
    _steering: Steering,
    /// Servers that the kernel half did not see begin, and does not see end.
    found: HashSet<Server>,
}

impl Inbound {
    /// Captures what comes to the pod's servers, those included that listen already.
    pub fn new(
        maps: &Arc<Maps>,
        pin_path: &Path,
        netns: &Netns,
        pod: &Pod,
    ) -> Result<Self, KernelError> {
        let cookie = netns.cookie();
        let steering = Steering::attach(maps, pin_path, netns.as_fd(), cookie)?;
        let known = maps.servers_known(cookie);
        let mut inbound = Self {
            _steering: steering,
            found: HashSet::new(),
        };
        // Without the module tcp_diag nothing is found, and nothing is to be forgotten.
        match netns.enter(listening) {
            Ok(listening) => {
                inbound.found = maps.forget_stale_servers(known, &listening);
                inbound.follow(maps, netns, pod, listening);
            }
            Err(error) => tracing::warn!(
                "pod {}: servers that listen already are not captured, since the kernel does not \
                 tell of them: {error}; load its module tcp_diag",
                pod.name
            ),
        }
        Ok(inbound)
    }

    /// Looks which servers came and went unseen.
    pub fn look(&mut self, maps: &Maps, netns: &Netns, pod: &Pod) -> io::Result<()> {
        let listening = netns.enter(listening)?;
        self.follow(maps, netns, pod, listening);
        Ok(())
    }

    fn follow(&mut self, maps: &Maps, netns: &Netns, pod: &Pod, listening: Vec<Server>) {
        let cookie = netns.cookie();
        let listening: HashSet<Server> = listening
            .into_iter()
            .filter(|server| is_captured(pod, server))
            .collect();
        self.found.retain(|server| {
            let listens = listening.contains(server);
            if !listens {
                maps.forget_server(cookie, *server);
            }
            listens
        });
        for server in listening {
            if !self.found.contains(&server) && maps.add_found_server(cookie, server) {
                self.found.insert(server);
            }
        }
    }
}

fn is_captured(pod: &Pod, server: &Server) -> bool {
    let port = server.address.port();
    port != OUTBOUND_PORT
        && port != INBOUND_PORT
        && !server.address.ip().is_loopback()
        && !pod.exclude_inbound_ports.contains(&port)
}
