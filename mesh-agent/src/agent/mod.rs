//! What `run` does, from start to drain.

mod descriptors;
mod event_log;
mod place;
mod reload;
mod signals;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
    time::Instant,
};

use anyhow::{Context as _, bail};
use tokio::task::JoinHandle;

use crate::{
    admin::{AdminSocket, Report, serve_admin, serve_metrics},
    config::{self, CgroupPath, Config, MetricsAddress},
    kernel::{
        Attached, Cgroup, KernelEvents, KernelLogger, Loaded, Maps, MeasuredSockets, Measuring,
        kernel_log, sweep_steering,
    },
    latency::{hardware::HardwareTimestamps, use_cards},
    one_line::one_line,
    pods::{self, PodError, PodSet},
    proxy::SharedRates,
    telemetry::Telemetry,
};
use event_log::log_events;
use place::Place;
pub use place::holder_of;
pub use signals::Signals;

/// Runs the agent with the configuration file `path` until SIGTERM or SIGINT, then drains.
pub fn run(path: &Path) -> anyhow::Result<()> {
    // Before any other thread exists: the threads must all begin in this namespace.
    pods::remember_own().context("cannot open this process's network namespace")?;
    let loaded = config::load(path)?;
    for warning in &loaded.warnings {
        tracing::warn!("{warning}");
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "mesh-agent run needs root (it loads eBPF programs and enters pods' network namespaces); use sudo"
        );
    }
    crate::check::requirements_of_run()?;
    descriptors::raise_limit();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the runtime")?;
    runtime.block_on(async {
        // First: a signal during the start must end the agent as properly as any other.
        let signals = Signals::new().context("cannot take over SIGTERM and SIGINT")?;
        let agent = Agent::start(path, loaded.config).await?;
        agent.serve(signals).await
    })
}

struct Agent {
    config_path: PathBuf,
    config: Config,
    report: Arc<Report>,
    attached: Attached,
    /// What measures pods' own sockets.
    measuring: Option<Measuring>,
    admin_socket: AdminSocket,
    tasks: Vec<JoinHandle<()>>,
    hardware: HardwareTimestamps,
    /// Held as long as this agent runs.
    _place: Place,
}

impl Agent {
    /// Everything that can fail because of the configuration or the pods comes before anything is
    /// attached; on an error nothing is left behind.
    async fn start(config_path: &Path, config: Config) -> anyhow::Result<Self> {
        let cgroup = match &config.agent.cgroup {
            CgroupPath::Auto => Cgroup::open_root()?,
            CgroupPath::Path(path) => Cgroup::open(path)?,
        };
        if !cgroup.contains_this_process() {
            bail!(
                "agent.cgroup: {}: this process runs outside of it, so the programs would not see \
                 its sockets; start the agent inside (write its PID to cgroup.procs) or name a \
                 cgroup above it",
                cgroup.path().display()
            );
        }
        let place = Place::take(&cgroup, &config.agent.pin_path)?;
        let mut loaded = Loaded::load(&config.agent.pin_path, config.agent.max_connections)?;
        let maps = Arc::new(loaded.maps()?);
        // Dropped on an error below, which sets the cards back.
        let mut hardware = HardwareTimestamps::start(config.latency.hardware);
        use_cards(hardware.clocks());
        let telemetry = Arc::new(Telemetry::start(&config.agent)?);
        let shared_rates = shared_rates(&config.agent)?;
        let pods = PodSet::new(Arc::clone(&maps), &config.agent, telemetry, shared_rates);
        let pods = Arc::new(pods);
        let earlier = Earlier::of(&maps, loaded.takes_over);
        pods.start_exclusions_at(earlier.next_exclusions_id);

        let report = Arc::new(Report {
            pods: Arc::clone(&pods),
            maps: Arc::clone(&maps),
            cgroup: cgroup.path().into(),
            pin_path: config.agent.pin_path.clone(),
            config: config_path.into(),
            started: Instant::now(),
            config_error: Mutex::new(None),
            capturing: AtomicBool::new(false),
            pod_sockets: OnceLock::new(),
        });
        // Servers first: a taken address or socket must leave nothing behind.
        if let MetricsAddress::Address(address) = config.agent.metrics {
            serve_metrics(address, Arc::clone(&report)).await?;
        }
        let events = KernelEvents::open(&loaded)?;
        let logger = KernelLogger::open(&mut loaded)?;
        let admin_socket = serve_admin(&config.agent.admin_socket, Arc::clone(&report))?;
        let took_over = loaded.takes_over;
        // Without programs attached this changes nothing but maps that nobody reads; in a take-over
        // it refreshes the pods of the earlier run one by one.
        loaded.pin_maps()?;
        if let Err(error) = pods.apply(&config) {
            pods.drain().await;
            loaded.unpin();
            return Err(error.into());
        }
        let attached = match Attached::attach(loaded, &cgroup) {
            Ok(attached) => attached,
            Err(error) => {
                pods.drain().await;
                return Err(error.into());
            }
        };
        let enrolled = pods.cookies();
        earlier.sweep(&maps, &enrolled);
        sweep_steering(&maps, &config.agent.pin_path, |cookie| {
            enrolled.contains(&cookie)
        });
        // After those that redirect: programs run in this order, and it looks at what they decided.
        let asked = config.latency.pod_sockets;
        let (measuring, measured) = Measuring::start(&maps, &config.agent.pin_path, &cgroup, asked);
        tell(&measured);
        let _first = report.pod_sockets.set(measured);
        report.capturing.store(true, Ordering::Relaxed);
        if took_over {
            tracing::info!("took over what an earlier agent left");
        }
        let tasks = vec![
            tokio::spawn(log_events(events, Arc::clone(&pods))),
            tokio::spawn(kernel_log(logger)),
            tokio::spawn(hardware.attend()),
        ];
        tracing::info!(
            "ready: {} of {} pods enrolled, capturing in {}",
            pods.cookies().len(),
            config.pods.len(),
            report.cgroup.display()
        );
        Ok(Self {
            config_path: config_path.into(),
            config,
            report,
            attached,
            measuring,
            admin_socket,
            tasks,
            hardware,
            _place: place,
        })
    }

    /// Serves until told to stop.
    async fn serve(mut self, mut signals: Signals) -> anyhow::Result<()> {
        let mut watcher = reload::Watcher::new(&self.config_path);
        loop {
            watcher.watch(&self.config.pods);
            let look = async {
                watcher.changed().await;
                watcher.read_config(&self.config).await
            };
            let outcome = tokio::select! {
                outcome = look => outcome,
                () = signals.received() => break,
            };
            if let Some(outcome) = outcome {
                self.reload(outcome, &mut watcher);
            }
            self.report.pods.reconcile();
        }
        self.stop(&mut signals).await
    }

    fn reload(&mut self, outcome: anyhow::Result<Config>, watcher: &mut reload::Watcher) {
        let applied = outcome.and_then(|config| {
            let applied = self.report.pods.apply(&config);
            if applied.as_ref().is_err_and(PodError::may_pass) {
                watcher.try_again();
            }
            Ok(applied.map(|()| config)?)
        });
        let mut config_error = self
            .report
            .config_error
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        match applied {
            Ok(config) => {
                tracing::info!(
                    "applied the changed configuration: {} pods",
                    config.pods.len()
                );
                self.config = config;
                *config_error = None;
            }
            Err(error) => {
                let line = one_line(&error);
                // Not once per look.
                if config_error.as_ref() != Some(&line) {
                    tracing::error!("the changed configuration is not applied: {line}");
                }
                *config_error = Some(line);
            }
        }
    }

    /// Drains and leaves nothing behind. A second signal cuts the draining short.
    async fn stop(self, signals: &mut Signals) -> anyhow::Result<()> {
        tracing::info!("stopping: capturing no new connections");
        self.report.capturing.store(false, Ordering::Relaxed);
        tokio::select! {
            () = self.report.pods.drain() => {}
            () = signals.received() => tracing::warn!("second signal: not waiting any longer"),
        }
        self.report.pods.telemetry().finish().await;
        for task in &self.tasks {
            task.abort();
        }
        if let Some(measuring) = self.measuring {
            measuring.detach();
        }
        let detached = self.attached.detach();
        drop(self.admin_socket);
        drop(self.hardware);
        detached?;
        tracing::info!("stopped: nothing is captured any more");
        Ok(())
    }
}

/// Says if less is measured of pods' own sockets than the configuration asks for.
fn tell(sockets: &MeasuredSockets) {
    if let Some(reason) = &sockets.why_not {
        tracing::warn!(
            "latency.podSockets: `{}` instead of `{}`: {reason}",
            sockets.measured,
            sockets.asked
        );
    }
}

/// Where agents count together, if the configuration says so. It need not be there yet.
fn shared_rates(agent: &config::Agent) -> anyhow::Result<Option<Arc<SharedRates>>> {
    let Some(url) = &agent.redis else {
        return Ok(None);
    };
    let shared = SharedRates::new(url);
    let shared = shared.with_context(|| format!("agent.redis: `{url}` cannot be used"))?;
    Ok(Some(Arc::new(shared)))
}

/// What an earlier run left in the maps that are taken over.
struct Earlier {
    cookies: Vec<u64>,
    next_exclusions_id: u32,
}

impl Earlier {
    fn of(maps: &Maps, takes_over: bool) -> Self {
        let pods = if takes_over { maps.pods() } else { Vec::new() };
        Self {
            next_exclusions_id: 1 + pods
                .iter()
                .map(|(_, pod)| pod.exclusions_id)
                .max()
                .unwrap_or(0),
            cookies: pods.into_iter().map(|(cookie, _)| cookie).collect(),
        }
    }

    /// Un-enrols pods that are not in today's configuration.
    fn sweep(&self, maps: &Maps, enrolled: &HashSet<u64>) {
        for cookie in self
            .cookies
            .iter()
            .filter(|cookie| !enrolled.contains(cookie))
        {
            if let Err(error) = maps.remove_pod(*cookie) {
                tracing::error!("{error}");
            }
        }
        if let Err(error) = maps.sweep_exclusions(|id| id < self.next_exclusions_id) {
            tracing::error!("{error}");
        }
    }
}
