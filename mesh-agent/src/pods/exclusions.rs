//! A pod's exclusions in the kernel half.

use std::sync::Arc;

use crate::{
    config::Pod,
    kernel::{KernelError, Maps},
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
        maps.add_exclusions(id, &pod.exclude_cidrs, &pod.exclude_ports)?;
        Ok(exclusions)
    }

    /// By which the pod's entry refers to them.
    pub const fn id(&self) -> u32 {
        self.id
    }
}

impl Drop for Exclusions {
    fn drop(&mut self) {
        let Pod {
            exclude_cidrs,
            exclude_ports,
            ..
        } = &*self.pod;
        if let Err(error) = self
            .maps
            .remove_exclusions(self.id, exclude_cidrs, exclude_ports)
        {
            tracing::error!("exclusions of pod {}: {error}", self.pod.name);
        }
    }
}
