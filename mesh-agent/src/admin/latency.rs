//! What the agent tells of where time goes.

mod model;
mod report;

pub use model::{FigureTimes, Latency, Measured, Point, Served, StampCounts, Trace};
pub use report::{latency, traces};
