//! virtio-blk disks.

use std::fs;

use crate::error::Error;
use crate::machine::state::Machine;
use crate::machine::uevents::until;
use crate::storage::devices::block;
use crate::storage::devices::pci::behind_port;

/// `address` is a PCI path: the slot of the root port and the device behind it.
pub async fn disk(address: &str, machine: &Machine) -> Result<String, Error> {
    machine.modules.load("virtio-blk")?;
    let look = || {
        let virtio = fs::read_dir(behind_port(address)?).ok()?.flatten();
        let mut folders =
            virtio.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"));
        block::node(&folders.next()?.path().join("block"))
    };
    until(&machine.events, block::LIMIT, &format!("the disk at {address}"), look).await
}
