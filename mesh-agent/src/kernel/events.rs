//! What the kernel half has to say: the `events` ring buffer and aya-log.

use std::{
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
};

use aya::{
    Ebpf,
    maps::{MapData, RingBuf},
};
use aya_log::EbpfLogger;
use mesh_common::{Event, EventKind};
use tokio::io::unix::AsyncFd;

use super::{
    KernelError, Loaded,
    maps::{self, socket_address},
    readiness,
};

/// The `events` ring buffer.
pub struct KernelEvents {
    ring: AsyncFd<RingBuf<MapData>>,
}

/// A rare event, readable.
#[derive(Clone, Copy, Debug)]
pub struct KernelEvent {
    /// What happened.
    pub kind: EventKind,
    /// Cookie of the pod's network namespace.
    pub netns_cookie: u64,
    /// Where the app wanted to go.
    pub destination: SocketAddr,
    /// Process that called connect.
    pub process: u32,
}

impl KernelEvent {
    /// What happened, for the log.
    pub const fn description(&self) -> &'static str {
        match self.kind {
            EventKind::FailedOpen => "went direct: nobody listens in the pod (onAgentDown: open)",
            EventKind::Refused => "refused: nobody listens in the pod (onAgentDown: closed)",
            EventKind::MapFull => {
                "not captured: origin_dst_map is full; raise agent.maxConnections"
            }
        }
    }
}

impl KernelEvents {
    /// Starts reading; to be called on the runtime.
    pub fn open(loaded: &Loaded) -> Result<Self, KernelError> {
        const NAME: &str = "events";
        let error = |source| KernelError::Map { map: NAME, source };
        let ring = RingBuf::try_from(maps::take(&loaded.ebpf, NAME)?).map_err(error)?;
        Ok(Self {
            ring: readiness::register(ring).map_err(|io| error(io.into()))?,
        })
    }

    /// Waits for events and passes them to `handle`, for ever.
    pub async fn run(mut self, mut handle: impl FnMut(KernelEvent)) {
        while let Ok(mut ready) = self.ring.readable_mut().await {
            let ring = ready.get_inner_mut();
            while let Some(item) = ring.next() {
                if let Ok(event) = bytemuck::try_pod_read_unaligned::<Event>(&item)
                    && let Some(kind) = EventKind::from_number(event.kind)
                {
                    handle(KernelEvent {
                        kind,
                        netns_cookie: event.netns_cookie,
                        destination: socket_address(event.address, event.port as u16),
                        process: event.process,
                    });
                }
            }
            ready.clear_ready();
        }
    }
}

/// Carries the kernel half's own log messages (aya-log) to the agent's log, for ever.
pub async fn kernel_log(logger: KernelLogger) {
    let Ok(mut logger) = readiness::register(logger) else {
        return;
    };
    while let Ok(mut ready) = logger.readable_mut().await {
        ready.get_inner_mut().0.flush();
        ready.clear_ready();
    }
}

/// Reader of the kernel half's log messages.
pub struct KernelLogger(EbpfLogger<&'static dyn log::Log>);

impl KernelLogger {
    /// Opens the log of the loaded programs.
    pub fn open(loaded: &mut Loaded) -> Result<Self, KernelError> {
        Self::of(&mut loaded.ebpf).ok_or(KernelError::Missing("AYA_LOGS"))
    }

    fn of(ebpf: &mut Ebpf) -> Option<Self> {
        EbpfLogger::init(ebpf).ok().map(Self)
    }
}

impl AsRawFd for KernelLogger {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_raw_fd()
    }
}
