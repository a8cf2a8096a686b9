//! The machine, or the namespaces, in which the containers of one pod run.

pub mod boot;
pub mod identity;
pub mod online;
pub mod ports;
pub mod sandbox;
pub mod uevents;
