//! Reads files of a container, which are untrusted.
//!
//! Only regular files are read, up to a limit, and no link leads out of the root. All of this
//! happens in a separate thread, with a deadline, because a file system may never respond. A
//! container has at most one such thread at a time.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, open, openat2};
use nix::sys::stat::{Mode, makedev};
use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::timeout;

use crate::error::Error;

const LIMIT: Duration = Duration::from_secs(10);
const MOST_BYTES: u64 = 4 << 20;

/// Held by the thread that reads the files of a container.
pub type Turn = Arc<Mutex<()>>;

/// The root of a container.
pub enum Root {
    Folder(PathBuf),
    Opened(OwnedFd),
}

impl Root {
    /// As a process sees it, with all its mounts.
    pub fn of_process(pid: i32) -> Result<Self, Error> {
        Ok(Self::Opened(open(format!("/proc/{pid}/root").as_str(), folder(), Mode::empty())?))
    }

    fn open(self) -> Result<Opened, Error> {
        Ok(Opened(match self {
            Self::Folder(path) => return Opened::folder(&path),
            Self::Opened(found) => found,
        }))
    }
}

/// An open root.
pub struct Opened(OwnedFd);

/// Calls `work` in a thread and returns its result, if it comes in time.
pub async fn ask<T: Send + 'static>(
    root: Root,
    turn: Turn,
    work: impl FnOnce(&Opened) -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    beside(turn, move || work(&root.open()?)).await
}

/// Like `ask`, for work that needs no root.
pub async fn beside<T: Send + 'static>(
    turn: Turn,
    work: impl FnOnce() -> Result<T, Error> + Send + 'static,
) -> Result<T, Error> {
    let asking = async {
        let held = turn.lock_owned().await;
        let done = spawn_blocking(move || {
            let _held = held; // until the work is done, even after a timeout
            work()
        });
        done.await?
    };
    timeout(LIMIT, asking).await.unwrap_or_else(|_| {
        let what = "the container's file system did not answer".to_owned();
        Err(Error::Timeout { what, seconds: LIMIT.as_secs() })
    })
}

impl Opened {
    pub fn folder(path: &Path) -> Result<Self, Error> {
        Ok(Self(open(path, folder(), Mode::empty())?))
    }

    /// Returns the text of a file, resolving links inside the container. A missing file reads
    /// as empty.
    pub fn read(&self, path: &str) -> Result<String, Error> {
        let refused = |error: Errno| {
            let text = error.desc();
            Error::Failed(format!("the container's /{path} cannot be opened: {text}"))
        };
        // First without opening it, because opening a device may have side effects.
        let found = match self.find(path, OFlag::empty()) {
            Ok(found) => File::from(found),
            Err(Errno::ENOENT | Errno::ENOTDIR) => return Ok(String::new()),
            Err(error) => return Err(refused(error)),
        };
        let meta = found.metadata()?;
        if meta.file_type().is_char_device() && meta.rdev() == makedev(1, 3) {
            return Ok(String::new()); // /dev/null hides a file
        }
        if !meta.is_file() {
            return Err(Error::Failed(format!("the container's /{path} is no regular file")));
        }
        let again = format!("/proc/self/fd/{}", found.as_raw_fd());
        let flags = OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC;
        let file = File::from(open(again.as_str(), flags, Mode::empty()).map_err(refused)?);
        let mut bytes = Vec::new();
        file.take(MOST_BYTES + 1).read_to_end(&mut bytes)?;
        if bytes.len() as u64 > MOST_BYTES {
            let most = MOST_BYTES >> 20;
            return Err(Error::Failed(format!(
                "the container's /{path} is larger than {most} MiB"
            )));
        }
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Returns whether the path itself is a regular file, not a link to one.
    pub fn has_file(&self, path: &str) -> bool {
        let path = path.trim_start_matches('/');
        self.find(path, OFlag::O_NOFOLLOW)
            .is_ok_and(|found| File::from(found).metadata().is_ok_and(|meta| meta.is_file()))
    }

    fn find(&self, path: &str, more: OFlag) -> nix::Result<OwnedFd> {
        let how = OpenHow::new()
            .flags(OFlag::O_PATH | OFlag::O_CLOEXEC | more)
            .resolve(ResolveFlag::RESOLVE_IN_ROOT);
        openat2(&self.0, Path::new(path), how)
    }
}

fn folder() -> OFlag {
    OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn links_stay_in_the_root() {
        let outer = tempfile::tempdir().unwrap();
        let root = outer.path().join("root");
        fs::create_dir_all(root.join("etc")).unwrap();
        fs::write(outer.path().join("secret"), "outside").unwrap();
        fs::write(root.join("secret"), "inside").unwrap();
        symlink("../../../../secret", root.join("etc/up")).unwrap();
        symlink(outer.path().join("secret"), root.join("etc/away")).unwrap();
        symlink("/secret", root.join("etc/rooted")).unwrap();
        symlink("loop", root.join("etc/loop")).unwrap();
        let opened = Opened::folder(&root).unwrap();
        assert_eq!(opened.read("etc/up").unwrap(), "inside");
        assert_eq!(opened.read("etc/rooted").unwrap(), "inside");
        assert_eq!(opened.read("../secret").unwrap(), "inside");
        assert_eq!(opened.read("etc/away").unwrap(), "", "there is no such file in the root");
        assert!(opened.read("etc/loop").is_err());
        assert!(opened.has_file("/secret"));
        assert!(!opened.has_file("/etc/up") && !opened.has_file("/etc") && !opened.has_file("/x"));
    }

    #[test]
    fn only_regular_files_of_some_size_are_read() {
        let root = tempfile::tempdir().unwrap();
        let opened = Opened::folder(root.path()).unwrap();
        mkfifo(&root.path().join("fifo"), Mode::S_IRUSR).unwrap();
        fs::create_dir(root.path().join("folder")).unwrap();
        fs::write(root.path().join("file"), b"a\xffb").unwrap();
        File::create(root.path().join("large")).unwrap().set_len(MOST_BYTES + 1).unwrap();
        File::create(root.path().join("full")).unwrap().set_len(MOST_BYTES).unwrap();
        for name in ["fifo", "folder", "large"] {
            assert!(opened.read(name).is_err(), "{name}");
        }
        assert_eq!(opened.read("full").unwrap().len() as u64, MOST_BYTES);
        assert_eq!(opened.read("file").unwrap(), "a\u{fffd}b");
        assert_eq!(opened.read("nonesuch").unwrap(), "");
        assert_eq!(opened.read("file/below").unwrap(), "");
    }
}
