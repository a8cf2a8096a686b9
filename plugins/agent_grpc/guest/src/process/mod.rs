//! Processes of containers: their streams, their log, their end.

pub mod child;
pub mod log;
pub mod log_pump;
pub mod procfs;
pub mod reaper;
pub mod streams;
pub mod terminal;
