//! One enrolled pod: the agent's sockets inside it and its entry in the kernel half.

use std::{net::TcpListener, sync::Arc};

use mesh_common::{
    ON_AGENT_DOWN_CLOSED, ON_AGENT_DOWN_OPEN, OUTBOUND_PORT, Pod as KernelPod, capture, pod_flags,
};
use tokio::task::JoinHandle;

use super::{Netns, PodError, listener};
use crate::{
    config::{OnAgentDown, Pod, Proxy},
    kernel::{Cgroup, KernelError, Maps},
    proxy::{Connections, serve},
};

/// An enrolled pod.
#[derive(Debug)]
pub(super) struct Enrolment {
    pub netns: Arc<Netns>,
    pub connections: Arc<Connections>,
    pod: Pod,
    kernel: KernelPod,
    tasks: Vec<JoinHandle<()>>,
}

/// What a pod needs before it can be enrolled; all that can fail has happened.
#[derive(Debug)]
pub(super) struct Ready {
    listeners: Vec<TcpListener>,
    kernel: KernelPod,
}

impl Ready {
    /// Listens in the pod, unless it has a proxy of its own or `listens` already.
    pub fn new(pod: &Pod, netns: &Netns, listens: bool, maps: &Maps) -> Result<Self, PodError> {
        let kernel = kernel_pod(pod)?;
        let listeners = if pod.proxy == Proxy::Agent && !listens {
            listener::open(netns, maps).map_err(|source| PodError::Listen {
                pod: pod.name.clone(),
                source,
            })?
        } else {
            Vec::new()
        };
        Ok(Self { listeners, kernel })
    }
}

impl Enrolment {
    /// Serves the listeners, then tells the kernel half.
    pub fn new(
        pod: &Pod,
        netns: Arc<Netns>,
        ready: Ready,
        exclusions_id: u32,
        maps: &Arc<Maps>,
    ) -> Result<Self, PodError> {
        let mut enrolment = Self {
            netns,
            connections: Arc::default(),
            pod: pod.clone(),
            kernel: KernelPod {
                exclusions_id,
                ..ready.kernel
            },
            tasks: Vec::new(),
        };
        enrolment.serve(ready.listeners, maps)?;
        enrolment.tell_kernel(maps)?;
        Ok(enrolment)
    }

    /// Whether the agent listens in the pod.
    pub fn listens(&self) -> bool {
        !self.tasks.is_empty()
    }

    /// Whether this is how the pod is enrolled now.
    pub fn is(&self, pod: &Pod) -> bool {
        self.pod == *pod
    }

    /// Changes how the pod is enrolled, without a moment un-enrolled: the new exclusions are there
    /// before the kernel half uses them, and listeners close only after it stopped.
    pub fn update(
        &mut self,
        pod: &Pod,
        ready: Ready,
        exclusions_id: u32,
        maps: &Arc<Maps>,
    ) -> Result<(), PodError> {
        self.serve(ready.listeners, maps)?;
        let old_pod = std::mem::replace(&mut self.pod, pod.clone());
        let old_id = self.kernel.exclusions_id;
        self.kernel = KernelPod {
            exclusions_id,
            ..ready.kernel
        };
        self.tell_kernel(maps)?;
        if pod.proxy != Proxy::Agent {
            self.stop_listening();
        }
        maps.remove_exclusions(old_id, &old_pod.exclude_cidrs, &old_pod.exclude_ports)
            .map_err(|source| self.kernel_error(source))
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

    /// Un-enrols the pod, then closes its listeners. Its connections go on.
    pub fn remove(mut self, maps: &Maps) -> Result<Arc<Connections>, KernelError> {
        maps.remove_pod(self.netns.cookie())?;
        self.stop_listening();
        let id = self.kernel.exclusions_id;
        maps.remove_exclusions(id, &self.pod.exclude_cidrs, &self.pod.exclude_ports)?;
        Ok(self.connections)
    }

    fn serve(&mut self, listeners: Vec<TcpListener>, maps: &Arc<Maps>) -> Result<(), PodError> {
        for listener in listeners {
            let listener =
                tokio::net::TcpListener::from_std(listener).map_err(|source| PodError::Listen {
                    pod: self.pod.name.clone(),
                    source: source.into(),
                })?;
            self.tasks.push(tokio::spawn(serve(
                listener,
                Arc::clone(&self.netns),
                Arc::clone(maps),
                Arc::clone(&self.connections),
            )));
        }
        Ok(())
    }

    fn stop_listening(&mut self) {
        for task in self.tasks.drain(..) {
            task.abort();
        }
    }

    fn tell_kernel(&self, maps: &Maps) -> Result<(), PodError> {
        let id = self.kernel.exclusions_id;
        maps.add_exclusions(id, &self.pod.exclude_cidrs, &self.pod.exclude_ports)
            .and_then(|()| maps.set_pod(self.netns.cookie(), &self.kernel))
            .map_err(|source| self.kernel_error(source))
    }

    fn kernel_error(&self, source: KernelError) -> PodError {
        PodError::Kernel {
            pod: self.pod.name.clone(),
            source,
        }
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
    let mut kernel = KernelPod {
        proxy_cgroup: 0,
        proxy_level: 0,
        capture: if pod.capture.outbound {
            capture::OUTBOUND
        } else {
            0
        },
        flags,
        on_agent_down: match pod.on_agent_down {
            OnAgentDown::Open => ON_AGENT_DOWN_OPEN,
            OnAgentDown::Closed => ON_AGENT_DOWN_CLOSED,
        },
        exclusions_id: 0,
        proxy_port: u32::from(OUTBOUND_PORT),
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
