//! Folders of the host that the machine can close while containers use them: each is mounted at a
//! hidden place, and passed through to its visible place. Saving a machine with a 9p mount is
//! impossible, because the host keeps the state of its files.

use std::collections::BTreeMap;
use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Duration;

use fuser::{Config, Session, SessionACL};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use parking_lot::Mutex;

use crate::error::Error;
use crate::share_fs::fd_cache::Budget;
use crate::share_fs::passthrough::Passthrough;

/// The file system type of a storage that is passed through.
pub const KIND: &str = "fuse";
const BELOW: &str = "/run/vc/below";
/// How long closing a share waits for requests that the host is still answering.
const DRAIN: Duration = Duration::from_secs(5);
/// Cache time for files that only the guest changes.
const FOR_EVER: Duration = Duration::from_secs(1 << 30);

struct Share {
    tag: String,
    flags: MsFlags,
    data: String,
    passthrough: Passthrough,
}

impl Share {
    fn below(&self) -> PathBuf {
        Path::new(BELOW).join(&self.tag)
    }

    fn root(&self) -> Result<OwnedFd, Errno> {
        open(&self.below(), OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())
    }

    fn take(&self) -> Result<(), Errno> {
        if !self.passthrough.is_let_go() {
            return Ok(());
        }
        mount(
            Some(self.tag.as_str()),
            &self.below(),
            Some("9p"),
            self.flags,
            Some(self.data.as_str()),
        )?;
        self.passthrough.take(self.root()?);
        Ok(())
    }

    fn let_go(&self) -> Result<(), Error> {
        self.passthrough.let_go(DRAIN)?;
        if let Err(error) = umount2(&self.below(), MntFlags::empty()) {
            self.passthrough.take(self.root()?);
            return Err(error.into());
        }
        Ok(())
    }

    fn serve(&self, point: &Path) -> Result<(), Errno> {
        let device = open("/dev/fuse", OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
        let data = format!(
            "fd={},rootmode=40000,user_id=0,group_id=0,default_permissions,allow_other",
            device.as_raw_fd()
        );
        mount(Some(self.tag.as_str()), point, Some("fuse"), self.flags, Some(data.as_str()))?;
        let session =
            Session::from_fd(self.passthrough.clone(), device, SessionACL::All, Config::default())
                .map_err(code)?;
        // The thread ends with the mount. Its result says only how the mount ended.
        std::thread::Builder::new()
            .name(self.tag.clone())
            .spawn(move || session.run())
            .map_err(code)?;
        Ok(())
    }
}

/// The mounted shares, by their visible places.
#[derive(Default)]
pub struct Shares {
    shares: Mutex<BTreeMap<PathBuf, Share>>,
    fd_budget: Budget,
}

impl Shares {
    /// Mounts a 9p share and passes it through to a place. ENOENT: the share does not exist yet.
    pub fn show(&self, tag: &str, point: &Path, flags: MsFlags, data: &str) -> Result<(), Errno> {
        let trust = if data.contains("cache=loose") { FOR_EVER } else { Duration::ZERO };
        let passthrough = Passthrough::new(trust, self.fd_budget.clone());
        let share = Share { tag: tag.into(), flags, data: data.into(), passthrough };
        fs::create_dir_all(share.below()).map_err(code)?;
        share.take()?;
        if let Err(error) = share.serve(point) {
            share.passthrough.end();
            umount2(&share.below(), MntFlags::MNT_DETACH)?;
            return Err(error);
        }
        self.shares.lock().insert(point.into(), share);
        Ok(())
    }

    /// Unmounts a visible place, and what is below it.
    pub fn hide(&self, point: &Path) -> Result<(), Error> {
        umount2(point, MntFlags::MNT_DETACH)?;
        let mut shares = self.shares.lock();
        if let Some(share) = shares.remove(point) {
            let is_let_go = share.passthrough.is_let_go();
            share.passthrough.end();
            if !is_let_go {
                umount2(&share.below(), MntFlags::MNT_DETACH)?;
            }
        }
        Ok(())
    }

    /// Closes all shares: processes that use one wait until they are reopened. If one fails to
    /// close, all stay open.
    pub fn let_go(&self) -> Result<(), Error> {
        let shares = self.shares.lock();
        for share in shares.values() {
            if let Err(error) = share.let_go() {
                take_all(&shares)?;
                let what = format!("the share {} cannot be let go of", share.tag);
                return Err(Error::context(what)(error));
            }
        }
        Ok(())
    }

    /// Reopens all shares, in this machine or in one that starts from its saved state. May be
    /// called twice.
    pub fn take(&self) -> Result<(), Error> {
        take_all(&self.shares.lock())
    }
}

fn take_all(shares: &BTreeMap<PathBuf, Share>) -> Result<(), Error> {
    for share in shares.values() {
        share
            .take()
            .map_err(Error::context(format!("the share {} cannot be mounted again", share.tag)))?;
    }
    Ok(())
}

fn code(error: std::io::Error) -> Errno {
    Errno::from_raw(error.raw_os_error().unwrap_or(nix::libc::EIO))
}
