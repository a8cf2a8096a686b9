//! The state that must differ between guests that are clones of the same machine: random numbers,
//! name, ids, clock.

use std::ffi::OsString;
use std::fs;
use std::os::fd::AsRawFd;

use nix::unistd::{gethostname, sethostname};

use crate::error::Error;
use crate::machine::clock;
use crate::machine::kind::Kind;
use crate::proto::SetUpPodRequest;

const FOLDER: &str = "/run/vc/identity";
/// Lines of /etc/hosts that the pod's containers have beside their own.
pub const HOSTS: &str = "/run/vc/identity/hosts";

/// Sets the given identity; returns the former host name, if there is a new one.
///
/// The seed comes first: what is generated here must differ between clones.
pub fn take(kind: Kind, request: &SetUpPodRequest) -> Result<Option<OsString>, Error> {
    if !request.seed.is_empty() && !kind.is_sandbox() {
        seed(&request.seed)?;
    }
    if request.time_ns != 0 && !kind.is_sandbox() {
        clock::set_time(request.time_ns)?;
    }
    let mut former = None;
    if !request.hostname.is_empty() {
        former = Some(gethostname()?);
        sethostname(&request.hostname)?;
    }
    fs::create_dir_all(FOLDER)?;
    let lines: String = request.hosts.iter().map(|line| format!("{line}\n")).collect();
    fs::write(HOSTS, lines)?;
    // The kernel generates its boot id only once; a guest that starts from a saved one
    // needs another.
    fs::write(format!("{FOLDER}/boot-id"), fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
    fs::write(format!("{FOLDER}/machine-id"), format!("{}\n", request.machine_id))?;
    Ok(former)
}

/// random(4): struct rand_pool_info is a count of bits, a size in bytes, and the bytes.
fn seed(bytes: &[u8]) -> Result<(), Error> {
    nix::ioctl_write_ptr_bad!(add_entropy, 0x4008_5203, u8);
    nix::ioctl_none_bad!(reseed, 0x5207);
    let size = i32::try_from(bytes.len())?;
    let mut pool = (size * 8).to_ne_bytes().to_vec();
    pool.extend(size.to_ne_bytes());
    pool.extend(bytes);
    let device = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the pointer is to as many bytes as the pool's own header says.
    unsafe { add_entropy(device.as_raw_fd(), pool.as_ptr()) }?;
    // SAFETY: takes no argument.
    unsafe { reseed(device.as_raw_fd()) }?;
    Ok(())
}
