//! The devices of a container and their nodes.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::state::Machine;
use crate::proto::Device;
use crate::storage::devices::{pci, scsi, virtio_blk};

/// Adds the nodes of a container's devices to its specification, with the guest's numbers.
pub async fn add(spec: &mut Value, devices: &[Device], machine: &Machine) -> Result<(), Error> {
    for device in devices {
        let Some(node) = find(device, machine).await? else { continue };
        if device.destination.is_empty() {
            continue;
        }
        let meta =
            fs::metadata(&node).map_err(Error::context(format!("the guest has no {node}")))?;
        let kind = if meta.file_type().is_block_device() { "b" } else { "c" };
        let (major, minor) = (major(meta.rdev()), minor(meta.rdev()));
        push(
            &mut spec["linux"]["devices"],
            json!({
                "path": device.destination, "type": kind, "major": major, "minor": minor,
                "fileMode": device.mode, "uid": device.uid, "gid": device.gid,
            }),
        );
        push(
            &mut spec["linux"]["resources"]["devices"],
            json!({
                "allow": true, "type": kind, "major": major, "minor": minor,
                "access": device.access,
            }),
        );
    }
    Ok(())
}

fn push(list: &mut Value, item: Value) {
    match list.as_array_mut() {
        Some(items) => items.push(item),
        None => *list = json!([item]),
    }
}

/// Returns the guest's node of a device; None for a device without a node.
pub async fn find(device: &Device, machine: &Machine) -> Result<Option<String>, Error> {
    match device.driver.as_str() {
        "scsi" => scsi::disk(&device.address, machine).await.map(Some),
        "blk" => virtio_blk::disk(&device.address, machine).await.map(Some),
        "pci" => {
            machine.modules.load("net")?;
            machine.modules.load("scsi")?;
            pci::wait(&device.address, &machine.events).await?;
            Ok(None)
        }
        "node" => {
            if let Some(purpose @ ("fuse" | "tun")) = device.address.rsplit('/').next() {
                machine.modules.load(purpose)?;
            }
            Ok(Some(device.address.clone()))
        }
        other => Err(Error::Failed(format!("this agent knows no device driver {other:?}"))),
    }
}
