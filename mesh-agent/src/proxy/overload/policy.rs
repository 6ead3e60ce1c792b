//! Overload control as the configuration has it, made ready for use.

use std::sync::LazyLock;

use http::HeaderName;

use crate::{
    config::{self, LifoRule, Mode},
    policy::{
        adaptive_concurrency::AdaptiveLimits,
        critical::Critical,
        overload::{AdmissionLimits, Lifo, QueueLimits},
    },
    proxy::protection::critical,
};

/// What keeps the servers of a pod from being asked more than they can do.
#[derive(Clone, Debug, PartialEq)]
pub struct OverloadPolicy {
    /// Whether it acts.
    pub mode: Mode,
    /// How many requests are worked on at once.
    pub concurrency: Concurrency,
    /// Where the others wait.
    pub queue: QueueLimits,
    /// Which are refused while they wait too long.
    pub admission: Option<AdmissionLimits>,
    /// Which are refused last.
    pub critical: Vec<Critical>,
    /// What says how important a request is.
    pub headers: PriorityHeaders,
}

/// How many requests are worked on at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Concurrency {
    /// So many.
    Fixed(u32),
    /// As many as is found.
    Adaptive(AdaptiveLimits),
}

/// The headers that say how important a request is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PriorityHeaders {
    /// How important it is.
    pub priority: HeaderName,
    /// Whose it is.
    pub user: HeaderName,
}

impl PriorityHeaders {
    /// Where nothing else is configured.
    pub fn usual() -> &'static Self {
        static USUAL: LazyLock<PriorityHeaders> =
            LazyLock::new(|| PriorityHeaders::from(&config::AdmissionControl::default()));
        &USUAL
    }
}

impl From<&config::AdmissionControl> for PriorityHeaders {
    fn from(admission: &config::AdmissionControl) -> Self {
        // Validated before.
        let name = |text: &str, default| text.parse().unwrap_or(HeaderName::from_static(default));
        Self {
            priority: name(&admission.priority_header, "x-mesh-priority"),
            user: name(&admission.user_header, "x-user-id"),
        }
    }
}

impl From<&config::Overload> for OverloadPolicy {
    fn from(overload: &config::Overload) -> Self {
        let queue = &overload.queue;
        let admission = overload.admission.as_ref();
        Self {
            mode: overload.mode,
            concurrency: match overload.concurrency {
                Some(fixed) => Concurrency::Fixed(fixed),
                None => Concurrency::Adaptive(AdaptiveLimits::from(&overload.adaptive)),
            },
            queue: QueueLimits {
                max_wait: queue.max_wait.get(),
                min_wait: queue.min_wait.get(),
                lifo: match queue.lifo {
                    LifoRule::Adaptive => Lifo::Adaptive,
                    LifoRule::Never => Lifo::Never,
                    LifoRule::Always => Lifo::Always,
                },
                size: queue.size,
            },
            admission: admission.map(|admission| AdmissionLimits {
                wait_target: admission.wait_target.get(),
            }),
            critical: critical(&overload.critical),
            headers: admission
                .map_or_else(|| PriorityHeaders::usual().clone(), PriorityHeaders::from),
        }
    }
}
