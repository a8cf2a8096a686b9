//! PCI devices, by the slot of their root port.

use std::fs;
use std::path::PathBuf;

use crate::error::Error;
use crate::machine::uevents::{Uevents, until};
use crate::storage::devices::block::LIMIT;

/// Returns when the kernel has found it.
pub async fn wait(address: &str, events: &Uevents) -> Result<(), Error> {
    until(events, LIMIT, &format!("the PCI device {address}"), || behind_port(address)).await?;
    Ok(())
}

/// Returns the folder in /sys of "port/device". The guest assigns the bus numbers, so the bus
/// behind the port is looked up.
pub fn behind_port(address: &str) -> Option<PathBuf> {
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
