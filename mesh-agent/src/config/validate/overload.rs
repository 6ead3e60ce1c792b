//! What the types cannot say of overload control.

use super::policy::{critical, is_header_name, limits};
use super::{refused, within};
use crate::config::field_path::FieldPath;
use crate::config::finding::Finding;
use crate::config::overload::{Overload, WaitingQueue};
use crate::config::yaml::quoted;

/// The first rule that it breaks.
pub(super) fn validate(at: &FieldPath, overload: &Overload) -> Result<(), Finding> {
    if let Some(concurrency) = overload.concurrency {
        within(at.field("concurrency"), concurrency, 1..)?;
    }
    limits::adaptive(&at.field("adaptive"), &overload.adaptive)?;
    let queue = &overload.queue;
    let at_queue = at.field("queue");
    within(
        at_queue.field("maxWait"),
        queue.max_wait,
        WaitingQueue::WAIT,
    )?;
    let shortest = *WaitingQueue::WAIT.start();
    within(
        at_queue.field("minWait"),
        queue.min_wait,
        shortest..=queue.max_wait,
    )?;
    within(
        at_queue.field("size"),
        queue.size,
        ..=WaitingQueue::MAX_SIZE,
    )?;
    if let Some(admission) = &overload.admission {
        let at = at.field("admission");
        within(
            at.field("waitTarget"),
            admission.wait_target,
            WaitingQueue::WAIT,
        )?;
        for (name, header) in [
            ("priorityHeader", &admission.priority_header),
            ("userHeader", &admission.user_header),
        ] {
            if !is_header_name(header) {
                let problem = format!("{} is not the name of a header", quoted(header));
                return Err(refused(at.field(name), problem));
            }
        }
    }
    critical(&at.field("critical"), &overload.critical)
}
