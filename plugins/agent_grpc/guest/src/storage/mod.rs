//! What is mounted for containers, and the devices that they get.

pub mod devices;
pub mod mounts;
