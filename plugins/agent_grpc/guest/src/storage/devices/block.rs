//! Disks that the kernel has found.

use std::fs;
use std::path::Path;
use std::time::Duration;

/// How long a plugged device may take to be seen: under software emulation PCIe hot plug needs some
/// 0.3 s.
pub const LIMIT: Duration = Duration::from_secs(30);

/// The node of the disk that a folder of /sys names, once it can be opened.
pub fn node(folder: &Path) -> Option<String> {
    let block = fs::read_dir(folder).ok()?.flatten().next()?;
    let node = Path::new("/dev").join(block.file_name());
    // It is there a moment before the disk can be opened (device_add_disk in Linux); an event
    // follows.
    fs::File::open(&node).ok()?;
    Some(node.to_string_lossy().into_owned())
}
