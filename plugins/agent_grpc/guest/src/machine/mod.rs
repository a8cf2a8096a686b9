//! The machine, or the namespaces, in which the containers of one pod run.

pub mod boot;
pub mod clock;
pub mod connections;
pub mod dial;
pub mod hotplug;
pub mod identity;
pub mod interfaces;
pub mod kind;
pub mod modules;
pub mod network;
pub mod ports;
pub mod power;
pub mod sandbox;
pub mod state;
pub mod uevents;
