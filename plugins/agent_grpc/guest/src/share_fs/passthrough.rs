//! A folder shown through FUSE: files that containers have open are known by path, so that the
//! folder itself can be closed and reopened while they run, in this machine or in one that starts
//! from its saved state.

use std::collections::HashMap;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::FileExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{FileAttr, FileHandle, FileType, INodeNo};
use nix::errno::Errno;
use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstat};

use parking_lot::{Condvar, Mutex, MutexGuard};

use crate::error::Error;
use crate::share_fs::attributes::{attributes, kind_of_entry};
use crate::share_fs::fd_cache::{Budget, FdCache};
use crate::share_fs::fd_path::fd_path;
use crate::share_fs::nodes::{Nodes, ROOT};

const NOT_KEPT: OFlag =
    OFlag::O_CREAT.union(OFlag::O_EXCL).union(OFlag::O_TRUNC).union(OFlag::O_DIRECT);

/// An open file of a container. `None` after the folder was closed: reopened by path at its
/// next use.
struct Opened {
    number: u64,
    flags: OFlag,
    file: Option<Arc<File>>,
}

pub struct Entry {
    pub ino: u64,
    pub kind: FileType,
    pub name: OsString,
}

/// The state of the folder. While `root` is None the folder is closed, and requests wait.
pub struct Folder {
    root: Option<Arc<OwnedFd>>,
    is_over: bool,
    pub nodes: Nodes,
    pub fd_cache: FdCache,
    opened: HashMap<u64, Opened>,
    listed: HashMap<u64, Arc<Vec<Entry>>>,
    next: u64,
    /// The number of files that requests use while the state is not locked.
    in_use: usize,
}

#[derive(Clone)]
pub struct Passthrough {
    shared: Arc<(Mutex<Folder>, Condvar)>,
    /// How long the kernel may cache attributes. Zero disables the cache.
    pub trust: Duration,
}

impl Passthrough {
    /// Creates a state without a folder.
    pub fn new(trust: Duration, budget: Budget) -> Self {
        Self { shared: Arc::new((Mutex::new(Folder::new(budget)), Condvar::new())), trust }
    }

    fn now(&self) -> MutexGuard<'_, Folder> {
        self.shared.0.lock()
    }

    /// Waits until the folder is open.
    pub fn folder(&self) -> MutexGuard<'_, Folder> {
        let mut folder = self.now();
        self.shared.1.wait_while(&mut folder, |folder| folder.root.is_none() && !folder.is_over);
        folder
    }

    pub fn is_let_go(&self) -> bool {
        self.now().root.is_none()
    }

    /// Calls a function with an open file. The folder is not locked meanwhile, because the host may
    /// take long, but it is not closed either.
    pub fn with_file<T>(
        &self,
        handle: FileHandle,
        call: impl FnOnce(&File) -> io::Result<T>,
    ) -> io::Result<T> {
        let file = {
            let mut folder = self.folder();
            let file = folder.file(handle)?;
            folder.in_use += 1;
            file
        };
        let outcome = call(&file);
        drop(file);
        self.now().in_use -= 1;
        self.shared.1.notify_all();
        outcome
    }

    /// Closes all files of the folder, after the requests that use one. Refused when a deleted file
    /// is still in use, because it has no path, and when the host does not answer in time.
    pub fn let_go(&self, timeout: Duration) -> Result<(), Error> {
        let mut folder = self.now();
        let is_deleted =
            |file: &Arc<File>| fstat(file.as_ref()).is_ok_and(|found| found.st_nlink == 0);
        if folder.opened.values().any(|opened| opened.file.as_ref().is_some_and(is_deleted)) {
            return Err(Error::failed("a deleted file in it is still open"));
        }
        for opened in folder.opened.values_mut() {
            opened.file = None;
        }
        folder.fd_cache.clear();
        let root = folder.root.take(); // from now on, further requests wait
        let is_busy = |folder: &mut Folder| folder.in_use > 0;
        if self.shared.1.wait_while_for(&mut folder, is_busy, timeout).timed_out() {
            folder.root = root;
            drop(folder);
            self.shared.1.notify_all();
            return Err(Error::failed("the host does not answer a request for a file in it"));
        }
        Ok(())
    }

    pub fn take(&self, root: OwnedFd) {
        self.now().root = Some(Arc::new(root));
        self.shared.1.notify_all();
    }

    /// Ends all requests, waiting ones included.
    pub fn end(&self) {
        let mut folder = self.now();
        let budget = folder.fd_cache.budget();
        let in_use = folder.in_use;
        *folder = Folder { is_over: true, in_use, ..Folder::new(budget) };
        drop(folder);
        self.shared.1.notify_all();
    }
}

impl Folder {
    fn new(budget: Budget) -> Self {
        Self {
            root: None,
            is_over: false,
            nodes: Nodes::default(),
            fd_cache: FdCache::new(budget),
            opened: HashMap::new(),
            listed: HashMap::new(),
            next: 0,
            in_use: 0,
        }
    }

    /// Returns a file by its number. It must still be the same file, and no link on the way
    /// is followed.
    pub fn point(&mut self, number: u64) -> nix::Result<Arc<OwnedFd>> {
        let root = self.root.as_ref().ok_or(Errno::EIO)?;
        if number == ROOT {
            return Ok(root.clone());
        }
        if let Some(held) = self.fd_cache.get(number) {
            return Ok(held);
        }
        for (parent, name) in self.nodes.places(number) {
            match self.point(parent).and_then(|folder| point_at(&folder, &name)) {
                Ok((point, found)) if found.st_ino == self.nodes.ino(number) => {
                    return Ok(self.fd_cache.put(number, point));
                }
                Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP | Errno::ESTALE) => {}
                Err(error) => return Err(error),
            }
        }
        Err(Errno::ESTALE)
    }

    /// Returns the same file, opened.
    pub fn reach(&mut self, number: u64, flags: OFlag) -> nix::Result<OwnedFd> {
        let point = self.point(number)?;
        // The file is behind a link of /proc.
        let flags = flags.difference(OFlag::O_NOFOLLOW);
        open(fd_path(point.as_ref()).as_str(), flags | OFlag::O_CLOEXEC, Mode::empty())
    }

    pub fn look_up(&mut self, parent: u64, name: &OsStr) -> nix::Result<FileAttr> {
        let folder = self.point(parent)?;
        if let Some(number) = self.nodes.at(parent, name) {
            // Otherwise the kernel would keep this file for the name.
            self.fd_cache.drop_old(number);
        }
        let (point, found) = point_at(&folder, name)?;
        let is_folder = SFlag::from_bits_truncate(found.st_mode) & SFlag::S_IFMT == SFlag::S_IFDIR;
        // A file without hard links that is still at its former place, too, was bound by the host
        // to two places: one may be read-only, or show other mounts below.
        let is_single = is_folder || found.st_nlink == 1;
        let former = self.nodes.elsewhere(found.st_ino, parent, name).filter(|_| is_single);
        let is_other_view = former.is_some_and(|former| self.is_there(former));
        let number = self.nodes.seen(found.st_ino, parent, name, is_other_view);
        self.fd_cache.put(number, point);
        Ok(self.told(&found, number))
    }

    /// Converts attributes for the kernel.
    fn told(&mut self, found: &FileStat, number: u64) -> FileAttr {
        let found = attributes(found, number);
        self.nodes.told(number, found.size);
        found
    }

    /// Returns whether a file is still at one of its places, even if it is cached.
    fn is_there(&mut self, number: u64) -> bool {
        self.fd_cache.drop(number);
        self.point(number).is_ok()
    }

    pub fn attributes(&mut self, number: u64, handle: Option<FileHandle>) -> nix::Result<FileAttr> {
        let found = self.stat(number, handle)?;
        Ok(self.told(&found, number))
    }

    fn stat(&mut self, number: u64, handle: Option<FileHandle>) -> nix::Result<FileStat> {
        let opened = handle.and_then(|handle| self.opened.get(&handle.0)?.file.clone());
        match opened {
            Some(file) => fstat(file.as_ref()),
            None => fstat(self.point(number)?.as_ref()),
        }
    }

    pub fn open(&mut self, number: u64, flags: i32) -> nix::Result<FileHandle> {
        let flags = OFlag::from_bits_truncate(flags).difference(NOT_KEPT);
        let file = Arc::new(File::from(self.reach(number, flags)?));
        Ok(self.hold(number, flags, file))
    }

    pub fn hold(&mut self, number: u64, flags: OFlag, file: Arc<File>) -> FileHandle {
        let handle = self.number();
        self.opened
            .insert(handle, Opened { number, flags: flags.difference(NOT_KEPT), file: Some(file) });
        FileHandle(handle)
    }

    pub fn file(&mut self, handle: FileHandle) -> nix::Result<Arc<File>> {
        let opened = self.opened.get(&handle.0).ok_or(Errno::EBADF)?;
        if let Some(file) = &opened.file {
            return Ok(file.clone());
        }
        let file = Arc::new(File::from(self.reach(opened.number, opened.flags)?));
        self.opened.get_mut(&handle.0).ok_or(Errno::EBADF)?.file = Some(file.clone());
        Ok(file)
    }

    pub fn release(&mut self, handle: FileHandle) {
        self.opened.remove(&handle.0);
        self.listed.remove(&handle.0);
    }

    /// Reads all names at once, so that a listing is consistent until its end.
    pub fn list(&mut self, number: u64) -> nix::Result<FileHandle> {
        let mut folder =
            nix::dir::Dir::from_fd(self.reach(number, OFlag::O_RDONLY | OFlag::O_DIRECTORY)?)?;
        let mut entries = Vec::new();
        for entry in folder.iter() {
            let entry = entry?;
            let name = std::os::unix::ffi::OsStrExt::from_bytes(entry.file_name().to_bytes());
            let kind = entry.file_type().map_or(FileType::RegularFile, kind_of_entry);
            entries.push(Entry {
                ino: self.nodes.likely(number, entry.ino()),
                kind,
                name: OsStr::to_owned(name),
            });
        }
        let handle = self.number();
        self.listed.insert(handle, Arc::new(entries));
        Ok(FileHandle(handle))
    }

    pub fn listing(&self, handle: FileHandle) -> nix::Result<Arc<Vec<Entry>>> {
        self.listed.get(&handle.0).cloned().ok_or(Errno::EBADF)
    }

    fn number(&mut self) -> u64 {
        self.next += 1;
        self.next
    }
}

pub fn read(file: &File, size: u32, offset: u64) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; size as usize];
    let mut filled = 0;
    while filled < buffer.len() {
        match file.read_at(&mut buffer[filled..], offset + filled as u64)? {
            0 => break,
            count => filled += count,
        }
    }
    buffer.truncate(filled);
    Ok(buffer)
}

/// Returns the entry of a folder itself, without following a link.
fn point_at(folder: &OwnedFd, name: &OsStr) -> nix::Result<(OwnedFd, FileStat)> {
    let point =
        openat(folder, name, OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC, Mode::empty())?;
    let found = fstat(&point)?;
    Ok((point, found))
}

pub fn number(ino: INodeNo) -> u64 {
    ino.0
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::thread;

    use super::*;

    /// A folder with one file, which is open.
    fn with_an_open_file() -> (tempfile::TempDir, Passthrough, FileHandle) {
        let below = tempfile::tempdir().unwrap();
        std::fs::write(below.path().join("a"), "text").unwrap();
        let passthrough = Passthrough::new(Duration::ZERO, Budget::default());
        passthrough.take(File::open(below.path()).unwrap().into());
        let mut folder = passthrough.folder();
        let found = folder.look_up(ROOT, OsStr::new("a")).unwrap();
        let handle = folder.open(found.ino.0, 0).unwrap();
        drop(folder);
        (below, passthrough, handle)
    }

    #[test]
    fn a_folder_is_closed_after_the_requests_that_use_a_file() {
        let (below, passthrough, handle) = with_an_open_file();
        let (begun, (finish, finished)) = (channel(), channel::<()>());
        let other = passthrough.clone();
        let request = thread::spawn(move || {
            other.with_file(handle, |file| {
                begun.0.send(()).unwrap();
                finished.recv().unwrap();
                read(file, 4, 0)
            })
        });
        begun.1.recv().unwrap();
        let other = passthrough.clone();
        let close = thread::spawn(move || other.let_go(Duration::from_secs(60)));
        while !passthrough.is_let_go() {
            thread::yield_now();
        }
        assert!(!close.is_finished(), "it was closed while a request used a file");
        finish.send(()).unwrap();
        close.join().unwrap().unwrap();
        assert_eq!(request.join().unwrap().unwrap(), b"text");
        let open = std::fs::read_dir("/proc/self/fd").unwrap().filter_map(|fd| {
            std::fs::read_link(fd.ok()?.path()).ok()?.starts_with(below.path()).then_some(())
        });
        assert_eq!(open.count(), 0, "a file of the folder is still open");
    }

    #[test]
    fn a_folder_whose_host_does_not_answer_stays_open() {
        let (_below, passthrough, handle) = with_an_open_file();
        passthrough.folder().in_use += 1;
        let error = passthrough.let_go(Duration::ZERO).unwrap_err();
        assert!(error.to_string().contains("does not answer"), "{error}");
        assert_eq!(passthrough.with_file(handle, |file| read(file, 4, 0)).unwrap(), b"text");
    }
}
