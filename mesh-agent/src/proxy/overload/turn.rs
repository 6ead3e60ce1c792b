//! That a request is worked on.

use std::{sync::Arc, time::Duration};

use super::OverloadControl;

/// A request that is worked on, until its answer has ended.
#[derive(Debug)]
pub struct Turn {
    control: Arc<OverloadControl>,
    /// How many were when it began, with it.
    active: u32,
}

impl Turn {
    pub(super) const fn new(control: Arc<OverloadControl>, active: u32) -> Self {
        Self { control, active }
    }

    /// Its answer has begun after `took`.
    pub fn answered(&self, took: Duration, is_failure: bool) {
        self.control.answered(took, self.active, is_failure);
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.control.ended();
    }
}
