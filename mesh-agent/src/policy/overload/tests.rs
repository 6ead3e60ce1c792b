//! How the parts behave, each alone and together.

mod admission;
mod queue;
mod simulation;
