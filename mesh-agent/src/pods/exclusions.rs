//! A pod's exclusions in the kernel half.

use std::sync::Arc;

use crate::{
    config::Pod,
    kernel::{Excluded, KernelError, Maps},
};

/// What one pod excludes, under an id of its own. Dropped, the kernel half forgets it again.
#[derive(Debug)]
pub(super) struct Exclusions {
    maps: Arc<Maps>,
    id: u32,
    pod: Arc<Pod>,
}

impl Exclusions {
    /// Adds the exclusions of `pod`, all or none.
    pub fn add(maps: &Arc<Maps>, id: u32, pod: &Arc<Pod>) -> Result<Self, KernelError> {
        // Made first: on a failure half way its drop takes back what is there already.
        let exclusions = Self {
            maps: Arc::clone(maps),
            id,
            pod: Arc::clone(pod),
        };
        maps.add_exclusions(id, excluded(pod))?;
        Ok(exclusions)
    }

    /// By which the pod's entry refers to them.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Exclusions {
    fn drop(&mut self) {
        let removed = self.maps.remove_exclusions(self.id, excluded(&self.pod));
        if let Err(error) = removed {
            tracing::error!("exclusions of pod {}: {error}", self.pod.name);
        }
    }
}

fn excluded(pod: &Pod) -> Excluded<'_> {
    Excluded {
        ranges: &pod.exclude_cidrs,
        ports: &pod.exclude_ports,
        inbound_ports: &pod.exclude_inbound_ports,
    }
}
