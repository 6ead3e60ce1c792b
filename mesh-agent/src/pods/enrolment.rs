//! One enrolled pod: the agent's sockets inside it and its entry in the kernel half.

use std::{
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use mesh_common::Pod as KernelPod;
use tokio::task::JoinSet;

use super::{
    Netns, PodError,
    exclusions::Exclusions,
    inbound::Inbound,
    kernel_pod::{IPV6_FLAGS, captures_datagrams, captures_inbound, ipv6_flags, kernel_pod},
    listener::{self, Families, Opened, Wanted},
    serving::Serving,
};
use crate::{
    config::{Pod, Proxy},
    kernel::{KernelError, Maps},
    proxy::{Connections, PodProxy, Shared},
};

/// An enrolled pod.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub netns: Arc<Netns>,
    pub proxy: Arc<PodProxy>,
    pod: Arc<Pod>,
    kernel: KernelPod,
    /// Whether its proxy cannot be reached, so that `kernel` is not what the kernel half has.
    unreachable: bool,
    serving: Serving,
    /// If connections from outside are captured.
    inbound: Option<Inbound>,
    exclusions: Exclusions,
}

/// All that a pod needs before it can be enrolled, or enrolled differently. Dropped, it was nothing.
#[derive(Debug)]
pub(super) struct Ready {
    pub netns: Arc<Netns>,
    pub pod: Arc<Pod>,
    pub kernel: KernelPod,
    opened: Opened,
    /// If they are captured from now on.
    inbound: Option<Inbound>,
    exclusions: Exclusions,
}

impl Ready {
    /// Opens what is missing of a pod that is enrolled as `enrolment`, if it is.
    pub fn new(
        pod: &Arc<Pod>,
        netns: Arc<Netns>,
        enrolment: Option<&Enrolment>,
        exclusions_id: u32,
        maps: &Arc<Maps>,
        pin_path: &Path,
    ) -> Result<Self, PodError> {
        let mut kernel = kernel_pod(pod)?;
        let missing = enrolment.map_or_else(
            || Serving::default().missing(),
            |enrolment| enrolment.serving.missing(),
        );
        let opened = open(pod, &netns, missing, maps)?;
        kernel.flags |= ipv6_flags(&netns, opened.has_ipv6);
        let is_captured = enrolment.is_some_and(|enrolment| enrolment.inbound.is_some());
        let inbound = (captures_inbound(pod) && !is_captured)
            .then(|| Inbound::new(maps, pin_path, &netns, pod))
            .transpose()
            .map_err(|source| kernel_error(pod, source))?;
        let exclusions = Exclusions::add(maps, exclusions_id, pod)
            .map_err(|source| kernel_error(pod, source))?;
        kernel.exclusions_id = exclusions.id();
        Ok(Self {
            netns,
            pod: Arc::clone(pod),
            kernel,
            opened,
            inbound,
            exclusions,
        })
    }
}

impl Enrolment {
    /// Serves a pod that the kernel half redirects already.
    pub fn new(ready: Ready, maps: &Arc<Maps>, shared: &Shared, datagram_idle: Duration) -> Self {
        let netns = Arc::clone(&ready.netns);
        let proxy = PodProxy::new(netns, Arc::clone(maps), shared.clone(), datagram_idle);
        proxy.set_dns_ports(ready.kernel.dns_ports);
        proxy.servers.apply(&ready.pod);
        let mut enrolment = Self {
            netns: ready.netns,
            proxy: Arc::new(proxy),
            pod: ready.pod,
            kernel: ready.kernel,
            unreachable: false,
            serving: Serving::default(),
            inbound: ready.inbound,
            exclusions: ready.exclusions,
        };
        enrolment.serve(ready.opened);
        enrolment
    }

    /// Whether this is how the pod is enrolled now.
    pub fn is(&self, pod: &Pod) -> bool {
        *self.pod == *pod
    }

    /// Its entry in the kernel half.
    pub fn entry(&self) -> KernelPod {
        if self.unreachable {
            // Nobody listens on port 0: what the pod chose for when the agent is down holds.
            KernelPod {
                proxy_port: 0,
                datagram_port: 0,
                ..self.kernel
            }
        } else {
            self.kernel
        }
    }

    /// Follows the kernel half, which has the changed entry already: until now both the old
    /// exclusions and the old listeners were there.
    pub fn update(&mut self, ready: Ready) {
        self.pod = ready.pod;
        self.kernel = ready.kernel;
        self.unreachable = false;
        self.exclusions = ready.exclusions;
        if self.pod.proxy != Proxy::Agent {
            tokio::spawn(super::serving::ended(self.stop_listening()));
        } else if !captures_datagrams(&self.pod) {
            self.serving.stop_datagrams();
        }
        if captures_inbound(&self.pod) {
            self.inbound = ready.inbound.or(self.inbound.take());
        } else {
            self.serving.stop_inbound();
            self.inbound = None;
        }
        self.proxy.set_dns_ports(self.kernel.dns_ports);
        self.proxy.servers.apply(&self.pod);
        self.serve(ready.opened);
    }

    /// Sees whether the pod can still be redirected, and opens listeners that are missing. A pod
    /// may take its loopback interface down, destroy the agent's listener or get IPv6 at any time.
    pub fn look(&mut self, maps: &Arc<Maps>) -> Result<(), PodError> {
        self.proxy.pools.sweep();
        self.proxy.traffic.sweep(Instant::now());
        let missing = self.serving.missing();
        let opened = open(&self.pod, &self.netns, missing, maps);
        let unreachable = opened.as_ref().is_err_and(PodError::is_not_there_yet);
        if let Ok(opened) = opened.as_ref() {
            for address in opened.addresses() {
                tracing::warn!(
                    "pod {}: opened the missing listener on {}",
                    self.pod.name,
                    address.map_or_else(|error| error.to_string(), |address| address.to_string())
                );
            }
        }
        if let Some(inbound) = &mut self.inbound
            && let Err(error) = inbound.look(maps, &self.netns, &self.pod)
        {
            tracing::debug!("pod {}: cannot see what listens: {error}", self.pod.name);
        }
        let before = self.entry();
        let flags_before = self.kernel.flags;
        if let Ok(opened) = opened.as_ref() {
            self.kernel.flags =
                self.kernel.flags & !IPV6_FLAGS | ipv6_flags(&self.netns, opened.has_ipv6);
        }
        let looked = opened.map(|opened| self.serve(opened));
        let was_unreachable = std::mem::replace(&mut self.unreachable, unreachable);
        if self.entry() != before
            && let Err(source) = maps.set_pod(self.netns.cookie(), &self.entry())
        {
            // Tried again on the next look.
            self.unreachable = was_unreachable;
            self.kernel.flags = flags_before;
            return Err(kernel_error(&self.pod, source));
        }
        looked
    }

    /// Captures no new connection; those under way still find the agent.
    pub fn stop_capturing(&self, maps: &Maps) -> Result<(), KernelError> {
        maps.set_pod(
            self.netns.cookie(),
            &KernelPod {
                capture: 0,
                ..self.kernel
            },
        )
    }

    /// Closes the listeners once what is queued there is accepted: the tasks that do so.
    pub fn stop_listening(&mut self) -> JoinSet<()> {
        std::mem::take(&mut self.serving).stop()
    }

    /// Un-enrols the pod. Its connections go on.
    pub fn remove(mut self, maps: &Maps) -> Result<(JoinSet<()>, Arc<Connections>), KernelError> {
        maps.remove_pod(self.netns.cookie())?;
        let listening = self.stop_listening();
        Ok((listening, Arc::clone(&self.proxy.connections)))
    }

    fn serve(&mut self, opened: Opened) {
        self.serving.add(opened, &self.proxy);
    }
}

/// Opens the `missing` sockets that the pod needs. One with a proxy of its own needs none for
/// connections.
fn open(pod: &Pod, netns: &Netns, missing: Wanted, maps: &Maps) -> Result<Opened, PodError> {
    let only_if = |needed: bool, missing: Families<bool>| Families {
        ipv4: needed && missing.ipv4,
        ipv6: needed && missing.ipv6,
    };
    let wanted = Wanted {
        streams: only_if(pod.proxy == Proxy::Agent, missing.streams),
        inbound: only_if(captures_inbound(pod), missing.inbound),
        datagrams: only_if(captures_datagrams(pod), missing.datagrams),
    };
    listener::open(netns, wanted, maps).map_err(|source| PodError::Listen {
        pod: pod.name.clone(),
        source,
    })
}

pub(super) fn kernel_error(pod: &Pod, source: KernelError) -> PodError {
    PodError::Kernel {
        pod: pod.name.clone(),
        source,
    }
}
