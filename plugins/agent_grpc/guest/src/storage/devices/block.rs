//! Disks that the kernel has found.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// Time limit for a plugged device to appear: under software emulation PCIe hot plug takes about
/// 0.3 s.
pub const LIMIT: Duration = Duration::from_secs(30);

/// Returns the node of a disk's folder in /sys, once it can be opened.
pub fn node(folder: &Path) -> Option<String> {
    let block = fs::read_dir(folder).ok()?.flatten().next()?;
    let node = Path::new("/dev").join(block.file_name());
    // The node exists shortly before the disk can be opened (device_add_disk in Linux); an
    // event follows.
    fs::File::open(&node).ok()?;
    Some(node.to_string_lossy().into_owned())
}
