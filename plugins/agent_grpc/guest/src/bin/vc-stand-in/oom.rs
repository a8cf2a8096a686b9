//! The end that engines understand as "out of memory".
//!
//! The guest's kernel has killed the process at the limit of its container. Engines see that in one
//! place only: the host's kernel tells those that watch the container's control group of memory.
//! So this program takes memory until the kernel kills it in that group. The limit is lowered for
//! this, and set back by a child when this program is gone: the machine may be in the group, too.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;

use nix::unistd::{ForkResult, fork};

const LIMIT: &str = "memory.limit_in_bytes"; // Documentation/admin-guide/cgroup-v1/memory.rst
const USAGE: &str = "memory.usage_in_bytes";
/// What is free before the limit is reached.
const SPARE_BYTES: u64 = 1 << 20;
/// The kernel may first take away so much of what it only caches for the group.
const MOST_BYTES: usize = 256 << 20;
const CHUNK_BYTES: usize = 1 << 20;

/// Ends this process. Returns only if that has failed.
pub fn end(group: &Path) -> io::Result<()> {
    // Never the machine.
    fs::write("/proc/self/oom_score_adj", "1000")?;
    let former = fs::read(group.join(LIMIT))?;
    let usage: u64 = fs::read_to_string(group.join(USAGE))?
        .trim()
        .parse()
        .map_err(|_| io::Error::other(format!("{USAGE} holds no number")))?;
    let mut limit = OpenOptions::new().write(true).open(group.join(LIMIT))?;
    let alive = set_back_after_the_end(&limit, &former)?;
    limit.write_all((usage + SPARE_BYTES).to_string().as_bytes())?;
    let taken: Vec<_> = (0..MOST_BYTES / CHUNK_BYTES).map(|_| vec![1_u8; CHUNK_BYTES]).collect();
    drop((std::hint::black_box(taken), alive));
    Err(io::Error::other("the kernel has not killed this program"))
}

/// Leaves a child that writes the former limit as soon as this process has ended, or the returned
/// file is closed.
fn set_back_after_the_end(limit: &File, former: &[u8]) -> io::Result<io::PipeWriter> {
    let (reading, writing) = io::pipe()?;
    let (limit, ours) = (limit.as_raw_fd(), writing.as_raw_fd());
    // SAFETY: the child only makes system calls.
    if let ForkResult::Child = unsafe { fork() }? {
        // SAFETY: the descriptors are open, and the buffers live until the end of the child.
        unsafe {
            for number in [0, 1, 2, ours] {
                libc::close(number);
            }
            let mut byte = 0_u8;
            libc::read(reading.as_raw_fd(), (&raw mut byte).cast(), 1);
            libc::write(limit, former.as_ptr().cast(), former.len());
            libc::_exit(0);
        }
    }
    Ok(writing)
}
