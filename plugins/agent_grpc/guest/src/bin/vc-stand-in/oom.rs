//! The end that engines understand as "out of memory".
//!
//! The guest's kernel has killed the process at the limit of its container. Engines see that in one
//! place only: the host's kernel tells those that watch the container's control group of memory.
//! So this program takes memory until the kernel kills it in that group. The limits are lowered for
//! this, and set back by a child when this program is gone. The machine may be in the group, too, and
//! must go on: this program is made the one that the kernel chooses. One that stands in for a further
//! process joins the group only now, as there is room for few.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::path::Path;
use std::ptr;

use nix::errno::Errno;
use nix::unistd::{ForkResult, fork};

/// A file with a limit, and what says to what that is lowered: what is used, or nothing at all.
type Files = (&'static str, Option<&'static str>);

// Documentation/admin-guide/cgroup-v1/memory.rst. The second is of memory and swap together, where
// the kernel counts that, and must not be below the first.
const VERSION_1: [Files; 2] = [
    ("memory.limit_in_bytes", Some("memory.usage_in_bytes")),
    ("memory.memsw.limit_in_bytes", Some("memory.memsw.usage_in_bytes")),
];
// Documentation/admin-guide/cgroup-v2.rst. The second is of swap alone; below what is used, it
// takes no more.
const VERSION_2: [Files; 2] = [("memory.max", Some("memory.current")), ("memory.swap.max", None)];
/// What is free before the limit is reached. The others have it when this program has been killed,
/// until the limit is set back.
const SPARE_BYTES: u64 = 16 << 20;
const CHUNK_BYTES: usize = 1 << 20;
/// The machine may take more while its limit is lowered.
const TRIES: usize = 8;
/// The folder below the group in which the machine may be.
const MACHINE: &str = "machine";
const PAGE_BYTES: usize = 4096;

/// A limit of the group.
struct Limit {
    file: File,
    former: Vec<u8>,
}

/// Ends this process. Returns only if that has failed.
pub fn end(group: &Path) -> io::Result<()> {
    let files = if group.join(VERSION_2[0].0).exists() { VERSION_2 } else { VERSION_1 };
    let [memory, swap] = files.map(|(name, _)| limit(&group.join(name)));
    let limits: Vec<_> = [Some(memory?), swap.ok()].into_iter().flatten().collect();
    // Before this program becomes the one to be killed, as its child would, too.
    let alive = set_back_after_the_end(&limits)?;
    fs::write("/proc/self/oom_score_adj", "1000")?;
    outweigh(group)?;
    fs::write(group.join("cgroup.procs"), std::process::id().to_string())?;
    let mut most = 0;
    for (mut limit, (_, usage)) in limits.into_iter().zip(files) {
        match usage {
            Some(usage) => most = lower(limit.file, &group.join(usage), most)?,
            None => limit.file.write_all(b"0")?,
        }
    }
    // The limit bounds it. What the kernel only caches for the group is taken away first.
    let mut taken = Vec::new();
    while taken.len() as u64 * CHUNK_BYTES as u64 <= most {
        let mut chunk = Vec::new();
        if chunk.try_reserve_exact(CHUNK_BYTES).is_err() {
            break;
        }
        chunk.resize(CHUNK_BYTES, 1_u8);
        taken.push(chunk);
    }
    drop((std::hint::black_box(taken), alive));
    Err(io::Error::other("the kernel has not killed this program"))
}

fn limit(path: &Path) -> io::Result<Limit> {
    Ok(Limit { former: fs::read(path)?, file: OpenOptions::new().write(true).open(path)? })
}

/// Makes more pages resident than any process of the group has, as the kernel compares those. They are
/// those of this program's file, mapped again and again, and so take no memory.
fn outweigh(group: &Path) -> io::Result<()> {
    let mut pids = fs::read_to_string(group.join("cgroup.procs"))?;
    // The machine may be elsewhere.
    pids += &fs::read_to_string(group.join(MACHINE).join("cgroup.procs")).unwrap_or_default();
    // One that cannot be read has ended.
    let most = pids.lines().filter_map(resident_pages).max().unwrap_or_default();
    let program = File::open("/proc/self/exe")?;
    let bytes = usize::try_from(program.metadata()?.len()).map_err(io::Error::other)?;
    let flags = libc::MAP_SHARED | libc::MAP_POPULATE;
    let (handle, access) = (program.as_raw_fd(), libc::PROT_READ);
    let mut pages = 0;
    while pages <= most {
        // SAFETY: the mapping is new, and never used.
        let mapped = unsafe { libc::mmap(ptr::null_mut(), bytes, access, flags, handle, 0) };
        if mapped == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        pages += bytes.div_ceil(PAGE_BYTES);
    }
    Ok(())
}

/// The pages of a process in memory, as proc(5)'s `statm` has them.
fn resident_pages(pid: &str) -> Option<usize> {
    fs::read_to_string(format!("/proc/{pid}/statm")).ok()?.split(' ').nth(1)?.parse().ok()
}

/// Lowers a limit to what is used, but not below `least`; returns it.
fn lower(mut limit: File, usage: &Path, least: u64) -> io::Result<u64> {
    let mut tries = 0;
    loop {
        let used: u64 = fs::read_to_string(usage)?
            .trim()
            .parse()
            .map_err(|_| io::Error::other(format!("{} holds no number", usage.display())))?;
        let wanted = least.max(used + SPARE_BYTES);
        match limit.write_all(wanted.to_string().as_bytes()) {
            Ok(()) => return Ok(wanted),
            Err(error) if error.raw_os_error() == Some(Errno::EBUSY as i32) && tries < TRIES => {
                tries += 1;
            }
            Err(error) => return Err(error),
        }
    }
}

/// Leaves a child that writes the former limits as soon as this process has ended, or the returned
/// file is closed.
fn set_back_after_the_end(limits: &[Limit]) -> io::Result<io::PipeWriter> {
    let (reading, writing) = io::pipe()?;
    let descriptors = limits.iter().map(|one| one.file.as_raw_fd()).chain([reading.as_raw_fd()]);
    let mut kept: Vec<_> = descriptors.map(i32::cast_unsigned).collect();
    kept.sort_unstable();
    // SAFETY: the child only makes system calls.
    if let ForkResult::Child = unsafe { fork() }? {
        // SAFETY: what is used below is kept open, and the buffers live until the end of the child.
        unsafe {
            // Not kept: the caller's streams, the channels, the other end of the pipe.
            let mut first = 0;
            for descriptor in kept {
                if descriptor > first {
                    libc::close_range(first, descriptor - 1, 0);
                }
                first = descriptor + 1;
            }
            libc::close_range(first, libc::c_uint::MAX, 0);
            let mut byte = 0_u8;
            libc::read(reading.as_raw_fd(), (&raw mut byte).cast(), 1);
            // The higher one first. Nobody is there to be told of a failure.
            for Limit { file, former } in limits.iter().rev() {
                libc::write(file.as_raw_fd(), former.as_ptr().cast(), former.len());
            }
            libc::_exit(0);
        }
    }
    Ok(writing)
}
