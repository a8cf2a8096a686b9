//! Plugged devices, found by the address that the host assigned, not by their kernel names.

pub mod block;
pub mod nodes;
pub mod pci;
pub mod scsi;
pub mod virtio_blk;
