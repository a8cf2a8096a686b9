//! Creates and removes entries of a folder, and reports them to the kernel.

use std::ffi::OsStr;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use fuser::{
    Errno as Refusal, FileAttr, FileHandle, FileType, FopenFlags, Generation, INodeNo, ReplyEmpty,
    ReplyEntry, Request,
};
use nix::errno::Errno;
use nix::fcntl::{OFlag, RenameFlags, openat, renameat2};
use nix::libc;
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, unlinkat};

use crate::share_fs::passthrough::{Folder, Passthrough, number};

const MOMENT: Duration = Duration::from_secs(1);

pub fn refusal(error: Errno) -> Refusal {
    Refusal::from_i32(error as i32)
}

/// Replies with a result or with its error.
macro_rules! answer {
    ($reply:ident, $outcome:expr, $found:pat => $told:expr) => {
        match $outcome {
            Ok($found) => $told,
            Err(error) => $reply.error($crate::share_fs::entries::refusal(error)),
        }
    };
}

pub(super) use answer;

/// New files belong to the user of the request, whose permission the kernel has checked.
struct Owner;

impl Owner {
    fn of(request: &Request) -> Self {
        Self::set(request.uid(), request.gid());
        Self
    }

    /// For this thread only: the C library's function would change all threads.
    fn set(uid: u32, gid: u32) {
        // SAFETY: two calls that take numbers. The group first: afterwards the right to change it
        // may be gone.
        unsafe {
            libc::syscall(libc::SYS_setfsgid, gid);
            libc::syscall(libc::SYS_setfsuid, uid);
        }
    }
}

impl Drop for Owner {
    fn drop(&mut self) {
        Self::set(0, 0);
    }
}

pub fn mode_of(mode: u32, umask: u32) -> Mode {
    Mode::from_bits_truncate(mode & !umask & 0o7777)
}

impl Folder {
    /// Creates a file, and opens it.
    pub fn create(
        &mut self,
        request: &Request,
        (parent, name): (u64, &OsStr),
        flags: OFlag,
        mode: Mode,
    ) -> nix::Result<(FileAttr, FileHandle)> {
        let how = flags | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        let point = self.point(parent)?;
        let made = {
            let _owner = Owner::of(request);
            openat(point.as_ref(), name, how, mode)?
        };
        let found = self.look_up(parent, name)?;
        if flags.contains(OFlag::O_EXCL) {
            self.nodes.may_have_capabilities(found.ino.0, false);
        }
        let handle = self.hold(found.ino.0, flags, Arc::new(File::from(made)));
        Ok((found, handle))
    }

    pub fn rename(
        &mut self,
        from: (u64, &OsStr),
        to: (u64, &OsStr),
        flags: RenameFlags,
    ) -> nix::Result<()> {
        let (old_parent, new_parent) = (self.point(from.0)?, self.point(to.0)?);
        renameat2(old_parent.as_ref(), from.1, new_parent.as_ref(), to.1, flags)?;
        self.nodes.moved(from, to, flags.contains(RenameFlags::RENAME_EXCHANGE));
        Ok(())
    }
}

impl Passthrough {
    /// Creates something in a folder and replies with it.
    pub fn make(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
        call: impl FnOnce(&OwnedFd) -> nix::Result<()>,
    ) {
        let mut folder = self.folder();
        let outcome = folder.point(number(parent)).and_then(|point| {
            let _owner = Owner::of(request);
            call(&point)
        });
        let outcome = outcome.and_then(|()| folder.look_up(number(parent), name));
        self.tell(outcome, reply);
    }

    /// Replies with the attributes of a file.
    pub fn tell(&self, outcome: nix::Result<FileAttr>, reply: ReplyEntry) {
        let generation = Generation(0);
        answer!(reply, outcome, found => reply.entry(&self.trust_in(&found), &found, generation));
    }

    pub fn remove(&self, parent: INodeNo, name: &OsStr, flags: UnlinkatFlags, reply: ReplyEmpty) {
        let mut folder = self.folder();
        let outcome =
            folder.point(number(parent)).and_then(|point| unlinkat(point.as_ref(), name, flags));
        answer!(reply, outcome, () => {
            if let Some(gone) = folder.nodes.gone(number(parent), name) {
                folder.fd_cache.drop(gone);
            }
            reply.ok();
        });
    }

    /// Returns how long the kernel may cache an entry. The place of a folder may be cached briefly
    /// in any case, because the path of each file may contain many folders.
    pub fn trust_in(&self, found: &FileAttr) -> Duration {
        if found.kind == FileType::Directory { self.trust.max(MOMENT) } else { self.trust }
    }

    pub fn cache_flags(&self) -> FopenFlags {
        if self.trust.is_zero() { FopenFlags::empty() } else { FopenFlags::FOPEN_KEEP_CACHE }
    }
}
