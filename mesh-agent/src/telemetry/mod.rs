//! What is told of single requests: a line in the access log, and spans of traces. Nothing here makes a
//! request wait: what cannot be taken at once is dropped and counted.

mod access_log;
mod exchanged;
mod otlp;

use std::{io, path::PathBuf, sync::atomic::Ordering, time::Duration};

use thiserror::Error;

use self::{access_log::AccessLog, otlp::Exporter};
use crate::config::{self, AccessLogTarget};

pub use exchanged::{Exchanged, Span};

/// How long ending waits for what is still to be written or sent.
const FINISH: Duration = Duration::from_secs(1);

/// Why requests cannot be told of.
#[derive(Debug, Error)]
#[error("agent.accessLog: {path}: {source}; name a file in a directory that exists")]
pub struct TelemetryError {
    /// The access log.
    path: PathBuf,
    /// What the kernel said.
    source: io::Error,
}

/// Where requests are told of.
#[derive(Debug, Default)]
pub struct Telemetry {
    access_log: Option<AccessLog>,
    exporter: Option<Exporter>,
    /// Share of new traces that are kept, from 0 to 1; `None` where none are begun.
    sample: Option<f64>,
}

/// How much was told, and how much was not.
#[derive(Clone, Copy, Debug, Default)]
pub struct TelemetryCounts {
    /// Lines that the access log did not take.
    pub log_lines_dropped: u64,
    /// Spans that the collector took.
    pub spans_exported: u64,
    /// Spans that it did not, or that were too many.
    pub spans_dropped: u64,
}

impl Telemetry {
    /// What the configuration asks for. To be called inside a runtime.
    pub fn start(agent: &config::Agent) -> Result<Self, TelemetryError> {
        let access_log = match &agent.access_log {
            AccessLogTarget::Off => None,
            AccessLogTarget::Stdout => Some(AccessLog::to_stdout()),
            AccessLogTarget::Path(path) => {
                let opened = AccessLog::to_file(path.clone());
                Some(opened.map_err(|source| TelemetryError {
                    path: path.clone(),
                    source,
                })?)
            }
        };
        let tracing = agent.tracing.as_ref();
        Ok(Self {
            access_log,
            exporter: tracing
                .and_then(config::Tracing::collector)
                .map(Exporter::start),
            sample: tracing.map(|tracing| tracing.sample),
        })
    }

    /// Whether anybody wants to know.
    pub const fn is_on(&self) -> bool {
        self.access_log.is_some() || self.sample.is_some()
    }

    /// Share of new traces that are kept, from 0 to 1; `None` where none are begun.
    pub const fn sample(&self) -> Option<f64> {
        self.sample
    }

    /// Whether spans are sent to a collector.
    pub const fn exports_spans(&self) -> bool {
        self.exporter.is_some()
    }

    /// A request is over.
    pub fn tell(&self, exchanged: Box<Exchanged>) {
        if let Some(exporter) = &self.exporter
            && exchanged.span.is_some_and(|span| span.is_sampled)
        {
            exporter.add(&exchanged);
        }
        if let Some(log) = &self.access_log {
            log.add(exchanged);
        }
    }

    /// How much was told.
    pub fn counts(&self) -> TelemetryCounts {
        let log = self.access_log.as_ref();
        let exported = self.exporter.as_ref().map(Exporter::counts);
        TelemetryCounts {
            log_lines_dropped: log.map_or(0, |log| log.dropped.load(Ordering::Relaxed)),
            spans_exported: exported.map_or(0, |(exported, _)| exported),
            spans_dropped: exported.map_or(0, |(_, dropped)| dropped),
        }
    }

    /// Waits until all that was told is written and sent, but not for long.
    pub async fn finish(&self) {
        let written = async {
            if let Some(log) = &self.access_log {
                log.written().await;
            }
        };
        let sent = async {
            if let Some(exporter) = &self.exporter {
                exporter.sent().await;
            }
        };
        let both = async { tokio::join!(written, sent) };
        let _late = tokio::time::timeout(FINISH, both).await;
    }
}
