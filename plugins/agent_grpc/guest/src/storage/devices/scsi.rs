//! SCSI disks, by "target:lun" on the first SCSI host.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;

use parking_lot::Mutex;

use crate::error::Error;
use crate::machine::state::Machine;
use crate::machine::uevents::until;
use crate::storage::devices::block;

/// `address` is "target:lun" on the first SCSI host.
pub async fn disk(address: &str, machine: &Machine) -> Result<String, Error> {
    machine.modules.load("scsi")?;
    let look = || block::node(&folder_of(address)?.join("block"));
    until(&machine.events, block::LIMIT, &format!("the SCSI disk {address}"), look).await
}

/// The folder in /sys of "target:lun".
fn folder_of(address: &str) -> Option<PathBuf> {
    let suffix = format!(":0:{address}");
    let disks = fs::read_dir("/sys/class/scsi_disk").ok()?.flatten();
    let found =
        disks.map(|disk| disk.path()).find(|path| path.to_string_lossy().ends_with(&suffix))?;
    Some(found.join("device"))
}

/// The number of containers that use a disk, by its address.
#[derive(Default)]
pub struct DiskUsers(Mutex<HashMap<String, usize>>);

impl DiskUsers {
    /// Counts one more container that uses a disk.
    pub fn hold(&self, address: &str) {
        *self.0.lock().entry(address.to_owned()).or_default() += 1;
    }

    /// Removes a disk from the kernel with its last user. Otherwise, when the host unplugs it and
    /// plugs another in its place at once, the kernel, still removing the first, might mistake one
    /// for the other.
    pub fn let_go(&self, address: &str) -> Result<(), Error> {
        let mut users = self.0.lock();
        if let Some(count) = users.get_mut(address) {
            *count -= 1;
            if *count > 0 {
                return Ok(());
            }
        }
        users.remove(address);
        match folder_of(address) {
            Some(folder) => fs::write(folder.join("delete"), "1")
                .map_err(Error::context(format!("disk {address}"))),
            None => Ok(()),
        }
    }
}
