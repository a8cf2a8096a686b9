//! What stat(2) tells, as FUSE wants to hear it; and changing it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{FileAttr, FileType, INodeNo, TimeOrNow};
use nix::dir::Type;
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag};
use nix::libc;
use nix::sys::stat::{FchmodatFlags, FileStat, Mode, UtimensatFlags, fchmodat, utimensat};
use nix::sys::time::TimeSpec;
use nix::unistd::{Gid, Uid, fchownat, ftruncate};

use crate::share_fs::passthrough::{Folder, Outcome, of_descriptor};

pub fn attributes(found: &FileStat, ino: u64) -> FileAttr {
    FileAttr {
        ino: INodeNo(ino),
        size: found.st_size.cast_unsigned(),
        blocks: found.st_blocks.cast_unsigned(),
        atime: time(found.st_atime, found.st_atime_nsec),
        mtime: time(found.st_mtime, found.st_mtime_nsec),
        ctime: time(found.st_ctime, found.st_ctime_nsec),
        crtime: UNIX_EPOCH,
        kind: kind(found.st_mode),
        perm: (found.st_mode & 0o7777) as u16,
        nlink: u32::try_from(found.st_nlink).unwrap_or(u32::MAX),
        uid: found.st_uid,
        gid: found.st_gid,
        rdev: u32::try_from(found.st_rdev).unwrap_or_default(),
        blksize: u32::try_from(found.st_blksize).unwrap_or(4096),
        flags: 0,
    }
}

/// That nothing is there, for the kernel to remember: the number is what tells.
pub const NOTHING: FileAttr = FileAttr {
    ino: INodeNo(0),
    size: 0,
    blocks: 0,
    atime: UNIX_EPOCH,
    mtime: UNIX_EPOCH,
    ctime: UNIX_EPOCH,
    crtime: UNIX_EPOCH,
    kind: FileType::RegularFile,
    perm: 0,
    nlink: 0,
    uid: 0,
    gid: 0,
    rdev: 0,
    blksize: 0,
    flags: 0,
};

/// What setattr asks for; None for what stays.
pub struct Changes {
    pub mode: Option<u32>,
    pub owner: (Option<u32>, Option<u32>),
    pub size: Option<u64>,
    pub times: (Option<TimeOrNow>, Option<TimeOrNow>),
}

impl Changes {
    pub fn make(&self, folder: &mut Folder, ino: u64) -> Outcome<()> {
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
                of_descriptor(pointed.as_ref()).as_str(),
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
            let path = of_descriptor(pointed.as_ref());
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

fn time(seconds: i64, nanoseconds: i64) -> SystemTime {
    let (since, fraction) = (
        Duration::from_secs(seconds.unsigned_abs()),
        Duration::from_nanos(nanoseconds.unsigned_abs()),
    );
    if seconds < 0 { UNIX_EPOCH - since + fraction } else { UNIX_EPOCH + since + fraction }
}

fn kind(mode: u32) -> FileType {
    match mode & libc::S_IFMT {
        libc::S_IFDIR => FileType::Directory,
        libc::S_IFLNK => FileType::Symlink,
        libc::S_IFIFO => FileType::NamedPipe,
        libc::S_IFSOCK => FileType::Socket,
        libc::S_IFCHR => FileType::CharDevice,
        libc::S_IFBLK => FileType::BlockDevice,
        _ => FileType::RegularFile,
    }
}

pub fn kind_of_entry(kind: Type) -> FileType {
    match kind {
        Type::Directory => FileType::Directory,
        Type::Symlink => FileType::Symlink,
        Type::Fifo => FileType::NamedPipe,
        Type::Socket => FileType::Socket,
        Type::CharacterDevice => FileType::CharDevice,
        Type::BlockDevice => FileType::BlockDevice,
        Type::File => FileType::RegularFile,
    }
}
