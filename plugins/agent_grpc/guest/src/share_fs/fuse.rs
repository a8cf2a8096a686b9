//! The FUSE requests for a folder that is passed through, answered with the files of that folder.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::SystemTime;

use fuser::{
    BsdFileFlags, Errno as Refusal, FileHandle, Filesystem, FopenFlags, Generation, INodeNo,
    InitFlags, KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData,
    ReplyDirectory, ReplyEmpty, ReplyEntry, ReplyLseek, ReplyOpen, ReplyStatfs, ReplyWrite,
    ReplyXattr, Request, TimeOrNow, WriteFlags,
};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, RenameFlags as Rename, readlinkat};
use nix::libc;
use nix::sys::stat::{SFlag, mkdirat, mknodat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{LinkatFlags, UnlinkatFlags, Whence, linkat, lseek, symlinkat};

use crate::share_fs::attributes;
use crate::share_fs::changes::Changes;
use crate::share_fs::entries::{answer, mode_of};
use crate::share_fs::fd_path::fd_path;
use crate::share_fs::passthrough::{Passthrough, number, read};
use crate::share_fs::xattrs;

const MAX_WRITE: u32 = 1 << 20;

impl Filesystem for Passthrough {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        // The kernel ignores capabilities that it does not support: none of these is required.
        let _ = config.add_capabilities(InitFlags::FUSE_PARALLEL_DIROPS);
        let _ = config.add_capabilities(InitFlags::FUSE_AUTO_INVAL_DATA);
        let _ = config.set_max_write(MAX_WRITE);
        Ok(())
    }

    fn lookup(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let outcome = match self.folder().look_up(number(parent), name) {
            Err(Errno::ENOENT) if !self.trust.is_zero() => Ok(attributes::NOTHING),
            outcome => outcome,
        };
        self.tell(outcome, reply);
    }

    fn forget(&self, _: &Request, ino: INodeNo, count: u64) {
        let mut folder = self.folder();
        if folder.nodes.forget(number(ino), count) {
            folder.fd_cache.drop(number(ino));
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr) {
        let outcome = self.folder().attributes(number(ino), handle);
        answer!(reply, outcome, found => reply.attr(&self.trust_in(&found), &found));
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        handle: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut folder = self.folder();
        let changes = Changes { mode, owner: (uid, gid), size, times: (atime, mtime) };
        let outcome = changes
            .make(&mut folder, number(ino))
            .and_then(|()| folder.attributes(number(ino), handle));
        answer!(reply, outcome, found => reply.attr(&self.trust_in(&found), &found));
    }

    fn readlink(&self, _: &Request, ino: INodeNo, reply: ReplyData) {
        let outcome =
            self.folder().point(number(ino)).and_then(|point| readlinkat(point.as_ref(), ""));
        answer!(reply, outcome, target => reply.data(&target.into_vec()));
    }

    fn mknod(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        device: u32,
        reply: ReplyEntry,
    ) {
        let kind = SFlag::from_bits_truncate(mode & libc::S_IFMT);
        self.make(request, parent, name, reply, |point| {
            mknodat(point, name, kind, mode_of(mode, umask), device.into())
        });
    }

    fn mkdir(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        reply: ReplyEntry,
    ) {
        self.make(request, parent, name, reply, |point| mkdirat(point, name, mode_of(mode, umask)));
    }

    fn symlink(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        target: &Path,
        reply: ReplyEntry,
    ) {
        self.make(request, parent, name, reply, |point| symlinkat(target, point, name));
    }

    fn link(
        &self,
        request: &Request,
        ino: INodeNo,
        parent: INodeNo,
        name: &OsStr,
        reply: ReplyEntry,
    ) {
        let linked = self.folder().point(number(ino));
        self.make(request, parent, name, reply, |point| {
            let former = fd_path(linked?.as_ref());
            linkat(AT_FDCWD, former.as_str(), point, name, LinkatFlags::AT_SYMLINK_FOLLOW)
        });
    }

    fn unlink(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, UnlinkatFlags::NoRemoveDir, reply);
    }

    fn rmdir(&self, _: &Request, parent: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(parent, name, UnlinkatFlags::RemoveDir, reply);
    }

    fn rename(
        &self,
        _: &Request,
        parent: INodeNo,
        name: &OsStr,
        new_parent: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let (from, to) = ((number(parent), name), (number(new_parent), new_name));
        let flags = Rename::from_bits_truncate(flags.bits());
        let outcome = self.folder().rename(from, to, flags);
        answer!(reply, outcome, () => reply.ok());
    }

    fn open(&self, _: &Request, ino: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        let outcome = self.folder().open(number(ino), flags.0);
        answer!(reply, outcome, handle => reply.opened(handle, self.cache_flags()));
    }

    fn create(
        &self,
        request: &Request,
        parent: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let mut folder = self.folder();
        let flags = OFlag::from_bits_truncate(flags).difference(OFlag::O_DIRECT);
        let mode = mode_of(mode, umask);
        let outcome = folder.create(request, (number(parent), name), flags, mode);
        answer!(reply, outcome, (found, handle) => {
            reply.created(&self.trust, &found, Generation(0), handle, self.cache_flags());
        });
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        // Each read of the share that reaches the end of the file is followed by one that finds it.
        let size = self.folder().nodes.readable(number(ino), offset, size);
        match self.with_file(handle, |file| read(file, size, offset)) {
            Ok(data) => reply.data(&data),
            Err(error) => reply.error(error.into()),
        }
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let outcome = self.with_file(handle, |file| file.write_all_at(data, offset));
        self.folder().nodes.is_written(number(ino));
        match outcome {
            Ok(()) => reply.written(u32::try_from(data.len()).unwrap_or(u32::MAX)),
            Err(error) => reply.error(error.into()),
        }
    }

    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        // ENOSYS stops further requests: nothing is buffered here, so there is nothing to flush.
        reply.error(Refusal::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.folder().release(handle);
        reply.ok();
    }

    fn fsync(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        let sync = |file: &File| if data_only { file.sync_data() } else { file.sync_all() };
        match self.with_file(handle, sync) {
            Ok(()) => reply.ok(),
            Err(error) => reply.error(error.into()),
        }
    }

    fn opendir(&self, _: &Request, ino: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let outcome = self.folder().list(number(ino));
        answer!(reply, outcome, handle => reply.opened(handle, FopenFlags::empty()));
    }

    fn readdir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: u64,
        mut reply: ReplyDirectory,
    ) {
        let listing = self.folder().listing(handle);
        answer!(reply, listing, entries => {
            let offset = usize::try_from(offset).unwrap_or(usize::MAX);
            for (place, entry) in entries.iter().enumerate().skip(offset) {
                if reply.add(INodeNo(entry.ino), place as u64 + 1, entry.kind, &entry.name) {
                    break;
                }
            }
            reply.ok();
        });
    }

    fn releasedir(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        reply: ReplyEmpty,
    ) {
        self.folder().release(handle);
        reply.ok();
    }

    fn fsyncdir(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok(); // new files are already in the folder below
    }

    fn statfs(&self, _: &Request, ino: INodeNo, reply: ReplyStatfs) {
        let outcome = self.folder().point(number(ino)).and_then(|point| fstatvfs(point.as_ref()));
        let small = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        answer!(reply, outcome, found => reply.statfs(
            found.blocks(),
            found.blocks_free(),
            found.blocks_available(),
            found.files(),
            found.files_free(),
            small(found.block_size()),
            small(found.name_max()),
            small(found.fragment_size()),
        ));
    }

    fn getxattr(&self, _: &Request, ino: INodeNo, name: &OsStr, size: u32, reply: ReplyXattr) {
        xattrs::tell(self.folder().xattr(number(ino), name, size), size, reply);
    }

    fn listxattr(&self, _: &Request, ino: INodeNo, size: u32, reply: ReplyXattr) {
        let outcome =
            self.folder().point(number(ino)).and_then(|point| xattrs::list(point.as_ref(), size));
        xattrs::tell(outcome, size, reply);
    }

    fn setxattr(
        &self,
        _: &Request,
        ino: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let mut folder = self.folder();
        folder.nodes.may_have_capabilities(number(ino), true);
        let outcome = folder
            .point(number(ino))
            .and_then(|point| xattrs::set(point.as_ref(), name, value, flags));
        answer!(reply, outcome, () => reply.ok());
    }

    fn removexattr(&self, _: &Request, ino: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let outcome =
            self.folder().point(number(ino)).and_then(|point| xattrs::remove(point.as_ref(), name));
        answer!(reply, outcome, () => reply.ok());
    }

    fn fallocate(
        &self,
        _: &Request,
        ino: INodeNo,
        handle: FileHandle,
        offset: u64,
        length: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        let call = |file: Arc<File>| {
            let mode = nix::fcntl::FallocateFlags::from_bits_truncate(mode);
            nix::fcntl::fallocate(file.as_ref(), mode, offset.cast_signed(), length.cast_signed())
        };
        let outcome = self.folder().file(handle).and_then(call);
        self.folder().nodes.is_written(number(ino));
        answer!(reply, outcome, () => reply.ok());
    }

    fn lseek(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let whence = match whence {
            libc::SEEK_DATA => Whence::SeekData,
            libc::SEEK_HOLE => Whence::SeekHole,
            _ => return reply.error(Refusal::EINVAL), // the kernel knows the other values
        };
        let outcome =
            self.folder().file(handle).and_then(|file| lseek(file.as_ref(), offset, whence));
        answer!(reply, outcome, found => reply.offset(found));
    }
}
