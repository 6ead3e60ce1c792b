//! One enrolled pod: the agent's sockets inside it and its entry in the kernel half.

use std::{sync::Arc, time::Duration};

use mesh_common::{
    DATAGRAM_PORT, MOST_CAPTURED_PORTS, ON_AGENT_DOWN_CLOSED, ON_AGENT_DOWN_OPEN, OUTBOUND_PORT,
    Pod as KernelPod, capture, pod_flags,
};
use tokio::task::JoinSet;

use super::{
    Netns, PodError,
    exclusions::Exclusions,
    listener::{self, Families, Opened, Wanted},
    serving::Serving,
};
use crate::{
    config::{OnAgentDown, Pod, Proxy},
    kernel::{Cgroup, KernelError, Maps},
    proxy::{Connections, PodProxy, SharedHosts},
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
    exclusions: Exclusions,
}

/// All that a pod needs before it can be enrolled, or enrolled differently. Dropped, it was nothing.
#[derive(Debug)]
pub(super) struct Ready {
    pub netns: Arc<Netns>,
    pub pod: Arc<Pod>,
    pub kernel: KernelPod,
    opened: Opened,
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
    ) -> Result<Self, PodError> {
        let mut kernel = kernel_pod(pod)?;
        let missing = enrolment.map_or_else(
            || Serving::default().missing(),
            |enrolment| enrolment.serving.missing(),
        );
        let opened = open(pod, &netns, missing, maps)?;
        if netns.ensure_token_route().unwrap_or(false) {
            kernel.flags |= pod_flags::IPV6_TOKENS;
        }
        let exclusions = Exclusions::add(maps, exclusions_id, pod)
            .map_err(|source| kernel_error(pod, source))?;
        kernel.exclusions_id = exclusions.id();
        Ok(Self {
            netns,
            pod: Arc::clone(pod),
            kernel,
            opened,
            exclusions,
        })
    }
}

impl Enrolment {
    /// Serves a pod that the kernel half redirects already.
    pub fn new(
        ready: Ready,
        maps: &Arc<Maps>,
        hosts: &SharedHosts,
        datagram_idle: Duration,
    ) -> Self {
        let netns = Arc::clone(&ready.netns);
        let proxy = PodProxy::new(netns, Arc::clone(maps), hosts.clone(), datagram_idle);
        proxy.set_dns_ports(ready.kernel.dns_ports);
        let mut enrolment = Self {
            netns: ready.netns,
            proxy: Arc::new(proxy),
            pod: ready.pod,
            kernel: ready.kernel,
            unreachable: false,
            serving: Serving::default(),
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
        self.proxy.set_dns_ports(self.kernel.dns_ports);
        self.serve(ready.opened);
    }

    /// Sees whether the pod can still be redirected, and opens listeners that are missing. A pod
    /// may take its loopback interface down, destroy the agent's listener or get IPv6 at any time.
    pub fn look(&mut self, maps: &Arc<Maps>) -> Result<(), PodError> {
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
        let looked = opened.map(|opened| self.serve(opened));
        let before = self.entry();
        let had_tokens = self.kernel.flags & pod_flags::IPV6_TOKENS;
        let has_tokens = self.netns.ensure_token_route().unwrap_or(false);
        let tokens = u32::from(has_tokens) * pod_flags::IPV6_TOKENS;
        let was_unreachable = std::mem::replace(&mut self.unreachable, unreachable);
        self.kernel.flags = self.kernel.flags & !pod_flags::IPV6_TOKENS | tokens;
        if self.entry() != before
            && let Err(source) = maps.set_pod(self.netns.cookie(), &self.entry())
        {
            // Tried again on the next look.
            self.unreachable = was_unreachable;
            self.kernel.flags = self.kernel.flags & !pod_flags::IPV6_TOKENS | had_tokens;
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
        datagrams: only_if(captures_datagrams(pod), missing.datagrams),
    };
    listener::open(netns, wanted, maps).map_err(|source| PodError::Listen {
        pod: pod.name.clone(),
        source,
    })
}

/// Whether datagrams of this pod come to the agent. With a proxy of its own they do not.
fn captures_datagrams(pod: &Pod) -> bool {
    pod.proxy == Proxy::Agent && (pod.capture.dns || !pod.capture.udp_ports.is_empty())
}

fn ports(ports: &[u16]) -> [u16; MOST_CAPTURED_PORTS] {
    let mut places = [0; MOST_CAPTURED_PORTS];
    for (place, port) in places.iter_mut().zip(ports) {
        *place = *port;
    }
    places
}

pub(super) fn kernel_error(pod: &Pod, source: KernelError) -> PodError {
    PodError::Kernel {
        pod: pod.name.clone(),
        source,
    }
}

/// The kernel half's view of a pod, still without its exclusions id.
fn kernel_pod(pod: &Pod) -> Result<KernelPod, PodError> {
    let mut flags = 0;
    if !pod.exclude_cidrs.is_empty() {
        flags |= pod_flags::EXCLUDES_CIDRS;
    }
    if !pod.exclude_ports.is_empty() {
        flags |= pod_flags::EXCLUDES_PORTS;
    }
    let captures_dns = pod.proxy == Proxy::Agent && pod.capture.dns;
    let mut kernel = KernelPod {
        proxy_cgroup: 0,
        proxy_level: 0,
        capture: (u32::from(pod.capture.outbound) * capture::OUTBOUND)
            | (u32::from(captures_dns) * capture::DNS),
        flags,
        on_agent_down: match pod.on_agent_down {
            OnAgentDown::Open => ON_AGENT_DOWN_OPEN,
            OnAgentDown::Closed => ON_AGENT_DOWN_CLOSED,
        },
        exclusions_id: 0,
        proxy_port: u32::from(OUTBOUND_PORT),
        datagram_port: u32::from(DATAGRAM_PORT),
        reserved: 0,
        dns_ports: ports(if captures_dns {
            &pod.capture.dns_ports
        } else {
            &[]
        }),
        udp_ports: ports(if pod.proxy == Proxy::Agent {
            &pod.capture.udp_ports
        } else {
            &[]
        }),
    };
    if let Proxy::External { port, cgroup } = &pod.proxy {
        let error = |source| PodError::ProxyCgroup {
            pod: pod.name.clone(),
            source,
        };
        let cgroup = Cgroup::open(cgroup).map_err(error)?;
        kernel.proxy_cgroup = cgroup.id().map_err(error)?;
        kernel.proxy_level = cgroup.level().map_err(error)?;
        kernel.proxy_port = u32::from(*port);
        kernel.flags |= pod_flags::EXTERNAL_PROXY;
    }
    Ok(kernel)
}
