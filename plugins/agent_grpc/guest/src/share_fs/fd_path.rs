//! Paths of descriptors, for system calls that take no descriptor.

use std::os::fd::AsRawFd;

/// The path under which the kernel shows a descriptor of this process.
pub fn fd_path(fd: &impl AsRawFd) -> String {
    format!("/proc/self/fd/{}", fd.as_raw_fd())
}
