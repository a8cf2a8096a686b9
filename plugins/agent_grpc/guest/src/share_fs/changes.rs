//! Changes of a file's attributes.

use std::time::UNIX_EPOCH;

use fuser::TimeOrNow;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::sys::stat::{FchmodatFlags, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, ftruncate};

use crate::share_fs::fd_path::fd_path;
use crate::share_fs::passthrough::Folder;

/// The attributes that setattr changes; None for unchanged ones.
pub struct Changes {
    pub mode: Option<u32>,
    pub owner: (Option<u32>, Option<u32>),
    pub size: Option<u64>,
    pub times: (Option<TimeOrNow>, Option<TimeOrNow>),
}

impl Changes {
    pub fn make(&self, folder: &mut Folder, ino: u64) -> nix::Result<()> {
        let pointed = folder.point(ino)?;
        if let (uid, gid) = self.owner
            && (uid.is_some() || gid.is_some())
        {
            fchownat(
                pointed.as_ref(),
                "",
                uid.map(Uid::from_raw),
                gid.map(Gid::from_raw),
                AtFlags::AT_EMPTY_PATH,
            )?;
        }
        if let Some(mode) = self.mode {
            let mode = Mode::from_bits_truncate(mode);
            fchmodat(
                AT_FDCWD,
                fd_path(pointed.as_ref()).as_str(),
                mode,
                FchmodatFlags::FollowSymlink,
            )?;
        }
        if let Some(size) = self.size {
            let size = size.try_into().map_err(|_| Errno::EFBIG)?;
            ftruncate(folder.reach(ino, OFlag::O_WRONLY)?, size)?;
        }
        if let (atime, mtime) = self.times
            && (atime.is_some() || mtime.is_some())
        {
            let path = fd_path(pointed.as_ref());
            utimensat(
                AT_FDCWD,
                path.as_str(),
                &spec(atime),
                &spec(mtime),
                UtimensatFlags::FollowSymlink,
            )?;
        }
        Ok(())
    }
}

fn spec(wanted: Option<TimeOrNow>) -> TimeSpec {
    match wanted {
        None => TimeSpec::UTIME_OMIT,
        Some(TimeOrNow::Now) => TimeSpec::UTIME_NOW,
        Some(TimeOrNow::SpecificTime(time)) => {
            TimeSpec::from_duration(time.duration_since(UNIX_EPOCH).unwrap_or_default())
        }
    }
}
