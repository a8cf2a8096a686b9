//! Extended attributes of a file that is opened with O_PATH: through its path in /proc, because no
//! call takes such a descriptor.

use std::ffi::{CString, OsStr};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;

use fuser::{Errno as Refusal, ReplyXattr};
use nix::errno::Errno;
use nix::libc;

use crate::share_fs::fd_path::fd_path;
use crate::share_fs::passthrough::Folder;

/// The guest's kernel asks before each write whether a file has it, to remove it. The host's kernel
/// removes it, too, when QEMU writes.
const CAPABILITIES: &str = "security.capability";

/// For a size of 0: the required size only.
pub enum Found {
    Size(u32),
    Data(Vec<u8>),
}

impl Folder {
    /// Returns an attribute. That a file has no capabilities is known for a moment, but to execute
    /// it the kernel asks for their value, and the share is asked.
    pub fn xattr(&mut self, number: u64, name: &OsStr, size: u32) -> nix::Result<Found> {
        let is_question = size == 0 && name == CAPABILITIES;
        if is_question && self.nodes.is_without_capabilities(number) {
            return Err(Errno::ENODATA);
        }
        let found = get(self.point(number)?.as_ref(), name, size);
        if is_question {
            // QEMU shares none of them.
            let is_without = matches!(found, Err(Errno::ENODATA | Errno::EOPNOTSUPP));
            self.nodes.may_have_capabilities(number, !is_without);
        }
        found
    }
}

fn get(pointed: &impl AsRawFd, name: &OsStr, size: u32) -> nix::Result<Found> {
    let (path, name) = (path(pointed)?, text(name.as_bytes())?);
    // SAFETY: both are strings that live through the call, and the buffer is as long as is said.
    fetch(size, |buffer, size| unsafe {
        libc::getxattr(path.as_ptr(), name.as_ptr(), buffer.cast(), size)
    })
}

pub fn list(pointed: &impl AsRawFd, size: u32) -> nix::Result<Found> {
    let path = path(pointed)?;
    // SAFETY: as above.
    fetch(size, |buffer, size| unsafe { libc::listxattr(path.as_ptr(), buffer.cast(), size) })
}

pub fn set(pointed: &impl AsRawFd, name: &OsStr, value: &[u8], flags: i32) -> nix::Result<()> {
    let (path, name) = (path(pointed)?, text(name.as_bytes())?);
    // SAFETY: as above.
    let outcome = unsafe {
        libc::setxattr(path.as_ptr(), name.as_ptr(), value.as_ptr().cast(), value.len(), flags)
    };
    Errno::result(outcome).map(drop)
}

pub fn remove(pointed: &impl AsRawFd, name: &OsStr) -> nix::Result<()> {
    let (path, name) = (path(pointed)?, text(name.as_bytes())?);
    // SAFETY: as above.
    Errno::result(unsafe { libc::removexattr(path.as_ptr(), name.as_ptr()) }).map(drop)
}

pub fn tell(outcome: nix::Result<Found>, size: u32, reply: ReplyXattr) {
    match outcome {
        Ok(Found::Size(found)) => reply.size(found),
        Ok(Found::Data(data)) if data.len() <= size as usize => reply.data(&data),
        Ok(Found::Data(_)) => reply.error(Refusal::ERANGE),
        Err(error) => reply.error(Refusal::from_i32(error as i32)),
    }
}

fn fetch(size: u32, call: impl FnOnce(*mut u8, usize) -> isize) -> nix::Result<Found> {
    let mut buffer = vec![0; size as usize];
    let count = Errno::result(call(buffer.as_mut_ptr(), buffer.len()))?;
    if size == 0 {
        return Ok(Found::Size(u32::try_from(count).map_err(|_| Errno::E2BIG)?));
    }
    buffer.truncate(count.unsigned_abs());
    Ok(Found::Data(buffer))
}

fn path(pointed: &impl AsRawFd) -> nix::Result<CString> {
    text(fd_path(pointed).as_bytes())
}

fn text(bytes: &[u8]) -> nix::Result<CString> {
    CString::new(bytes).map_err(|_| Errno::EINVAL)
}
