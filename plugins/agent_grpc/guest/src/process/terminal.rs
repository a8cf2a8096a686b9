//! Terminals of processes.

use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};

use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};

use crate::error::Error;

/// The socket through which crun hands over a terminal's master side.
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join("console.sock");
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// Returns the terminal. Call it after crun has succeeded: it has sent by then, so this does
    /// not wait.
    pub fn receive(self) -> Result<OwnedFd, Error> {
        let (peer, _) = self.listener.accept()?;
        let mut name = [0; 256];
        let mut slices = [IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!([libc::c_int; 1]);
        let message = recvmsg::<()>(
            peer.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control
                && let Some(&fd) = fds.first()
            {
                // SAFETY: the kernel has just created this descriptor, and nothing else owns it.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        Err(Error::failed("crun sent no terminal"))
    }
}

pub fn resize(terminal: &OwnedFd, rows: u32, columns: u32) -> Result<(), Error> {
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
    let size = libc::winsize {
        ws_row: rows.try_into()?,
        ws_col: columns.try_into()?,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the pointer is to a winsize, which is what this request reads.
    unsafe { set_size(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}
