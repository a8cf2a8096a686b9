//! Plugged devices, found by the address that the host knows for certain, never by a guessed name.

use std::collections::HashMap;
use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{LazyLock, Mutex};
use std::time::Duration;

use nix::sys::stat::{major, minor};
use serde_json::{Value, json};

use crate::Failure;
use crate::machine::boot;
use crate::machine::uevents::{Uevents, until};
use crate::proto::Device;

/// How long a plugged device may take to be seen: under software emulation PCIe hot plug needs some
/// 0.3 s.
pub const LIMIT: Duration = Duration::from_secs(30);

/// How many containers use a SCSI disk, by its address.
static USERS: LazyLock<Mutex<HashMap<String, usize>>> = LazyLock::new(Mutex::default);

/// Adds the nodes of a container's devices to its specification, with the guest's numbers.
pub async fn add_nodes(
    spec: &mut Value,
    devices: &[Device],
    events: &Uevents,
) -> Result<(), Failure> {
    for device in devices {
        let Some(node) = find(device, events).await? else { continue };
        if device.destination.is_empty() {
            continue;
        }
        let meta =
            fs::metadata(&node).map_err(|error| format!("the guest has no {node}: {error}"))?;
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
                "allow": true, "type": kind, "major": major, "minor": minor, "access": device.access,
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

/// The guest's node of a device; none for one that has no node.
pub async fn find(device: &Device, events: &Uevents) -> Result<Option<String>, Failure> {
    match device.driver.as_str() {
        "scsi" => scsi_disk(&device.address, events).await.map(Some),
        "blk" => virtio_disk(&device.address, events).await.map(Some),
        "pci" => {
            boot::load_modules("net")?;
            boot::load_modules("scsi")?;
            let what = format!("the PCI device {}", device.address);
            until(events, LIMIT, &what, || behind_port(&device.address)).await.map(|_| None)
        }
        "node" => {
            if let Some(purpose @ ("fuse" | "tun")) = device.address.rsplit('/').next() {
                boot::load_modules(purpose)?;
            }
            Ok(Some(device.address.clone()))
        }
        other => Err(format!("this agent knows no device driver {other:?}").into()),
    }
}

/// `address` is "target:lun" on the first SCSI host.
pub async fn scsi_disk(address: &str, events: &Uevents) -> Result<String, Failure> {
    boot::load_modules("scsi")?;
    let look = || block_node(&scsi_device(address)?.join("block"));
    until(events, LIMIT, &format!("the SCSI disk {address}"), look).await
}

/// The folder in /sys of "target:lun".
fn scsi_device(address: &str) -> Option<PathBuf> {
    let suffix = format!(":0:{address}");
    let disks = fs::read_dir("/sys/class/scsi_disk").ok()?.flatten();
    let found =
        disks.map(|disk| disk.path()).find(|path| path.to_string_lossy().ends_with(&suffix))?;
    Some(found.join("device"))
}

/// Counts one more container that uses a SCSI disk.
pub fn hold(address: &str) {
    *USERS.lock().expect("no holder of this lock panics").entry(address.to_owned()).or_default() +=
        1;
}

/// The last one to let a SCSI disk go takes it out of the kernel. The host unplugs it next and may
/// plug another one in its place at once, while the kernel still handles the end of the first and
/// would take one for the other.
pub fn let_go(address: &str) -> Result<(), Failure> {
    let mut users = USERS.lock().expect("no holder of this lock panics");
    if let Some(count) = users.get_mut(address) {
        *count -= 1;
        if *count > 0 {
            return Ok(());
        }
    }
    users.remove(address);
    match scsi_device(address) {
        Some(folder) => fs::write(folder.join("delete"), "1")
            .map_err(|error| format!("disk {address}: {error}").into()),
        None => Ok(()),
    }
}

/// `address` is a PCI path: the slot of the root port and the device behind it.
pub async fn virtio_disk(address: &str, events: &Uevents) -> Result<String, Failure> {
    boot::load_modules("virtio-blk")?;
    let look = || {
        let virtio = fs::read_dir(behind_port(address)?).ok()?.flatten();
        let mut folders =
            virtio.filter(|entry| entry.file_name().to_string_lossy().starts_with("virtio"));
        block_node(&folders.next()?.path().join("block"))
    };
    until(events, LIMIT, &format!("the disk at {address}"), look).await
}

/// The folder in /sys of "port/device": buses are numbered by the guest, so the one behind the port
/// is looked up.
fn behind_port(address: &str) -> Option<PathBuf> {
    let (port, device) = address.split_once('/')?;
    let folder = PathBuf::from(format!("/sys/bus/pci/devices/0000:00:{port}.0"));
    let suffix = format!(":{device}.0");
    let entries = fs::read_dir(&folder).ok()?.flatten();
    let mut found = entries.filter(|entry| {
        let name = entry.file_name().to_string_lossy().into_owned();
        name.starts_with("0000:") && name.ends_with(&suffix)
    });
    found.next().map(|entry| entry.path())
}

fn block_node(folder: &Path) -> Option<String> {
    let block = fs::read_dir(folder).ok()?.flatten().next()?;
    let node = Path::new("/dev").join(block.file_name());
    // It is there a moment before the disk can be opened (device_add_disk in Linux); an event
    // follows.
    fs::File::open(&node).ok()?;
    Some(node.to_string_lossy().into_owned())
}
