//! The mounts and devices of containers.

pub mod devices;
pub mod mounts;
