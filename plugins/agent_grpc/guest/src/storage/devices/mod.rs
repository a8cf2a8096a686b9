//! Plugged devices, found by the address that the host knows for certain, never by a guessed name.

pub mod block;
pub mod nodes;
pub mod pci;
pub mod scsi;
pub mod virtio_blk;
