//! Fills an empty volume with the files that the root file system has at its place, with owners
//! and permissions.
//!
//! `vc-agent --copy-up ROOTFS PATH VOLUME` does this in a process of its own, with the root file
//! system as its root: links in PATH are resolved there. Below the volume no link is followed,
//! because other pods may write there at the same time.

use std::ffi::{CStr, CString, OsStr};
use std::fs::{self, File, Metadata, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chroot, fchown};
use std::path::Path;
use std::process::{Command, Stdio};

use nix::dir::Dir;
use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, open, openat};
use nix::sys::stat::{Mode, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchownat, symlinkat, unlinkat};
use serde_json::{Value, json};

use crate::error::Error;
use crate::process::reaper::Reaper;

pub const WORD: &str = "--copy-up";
const OPTION: &str = "x-vc-copy-up";
const ERROR: &str = "copy-up.error";

/// Fills the volumes of a container that have copy_up.
pub async fn fill(
    spec: &mut Value,
    rootfs: &str,
    folder: &Path,
    reaper: &Reaper,
) -> Result<(), Error> {
    let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return Ok(()) };
    for mount in mounts {
        let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) else {
            continue;
        };
        let before = options.len();
        options.retain(|option| option != &json!(OPTION));
        if options.len() == before {
            continue;
        }
        let (Some(source), Some(path)) = (mount["source"].as_str(), mount["destination"].as_str())
        else {
            continue;
        };
        let error = folder.join(ERROR);
        let mut command = Command::new("/proc/self/exe");
        command.args([WORD, rootfs, path, source]).stdin(Stdio::null()).stdout(Stdio::null());
        let child = command.stderr(File::create(&error)?).spawn()?;
        let ended = reaper.claim(child.id().try_into()?).await?;
        let told = fs::read_to_string(&error).unwrap_or_default();
        fs::remove_file(&error)?;
        if ended.code != 0 {
            return Err(Error::Failed(format!(
                "the volume for {path} cannot be filled: {}",
                told.trim()
            )));
        }
    }
    Ok(())
}

/// Implements that process. Nothing is left in the volume when it fails.
pub fn serve(rootfs: &str, path: &str, volume: &str) -> Result<(), Error> {
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let target = open(volume, flags, Mode::empty())?;
    chroot(rootfs)?;
    std::env::set_current_dir("/")?;
    let outcome = match fs::metadata(path) {
        Ok(found) if found.is_dir() && is_empty(&target)? => {
            copy_folder(Path::new(path), &found, target.try_clone()?)
        }
        _ => return Ok(()), // nothing is there to be copied, or no place for it
    };
    if let Err(error) = outcome {
        clear(target)?;
        eprintln!("{error}");
        std::process::exit(1);
    }
    Ok(())
}

fn is_empty(folder: &OwnedFd) -> nix::Result<bool> {
    Ok(names(folder)?.is_empty())
}

fn names(folder: &OwnedFd) -> nix::Result<Vec<CString>> {
    let opened = openat(
        folder,
        ".",
        OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC,
        Mode::empty(),
    )?;
    let mut found = Vec::new();
    for entry in Dir::from_fd(opened)?.iter() {
        let name = entry?.file_name().to_owned();
        if ![c".", c".."].contains(&name.as_c_str()) {
            found.push(name);
        }
    }
    Ok(found)
}

/// Owner and permissions are set last, so that a read-only folder can be filled before.
fn copy_folder(from: &Path, found: &Metadata, into: OwnedFd) -> Result<(), Error> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (path, name) = (entry.path(), entry.file_name());
        copy_one(&path, &name, &into).map_err(Error::context(format!("{}", path.display())))?;
    }
    take_on(&File::from(into), found)?;
    Ok(())
}

fn copy_one(from: &Path, name: &OsStr, into: &OwnedFd) -> Result<(), Error> {
    let found = fs::symlink_metadata(from)?;
    let (kind, private) = (found.file_type(), Mode::S_IRUSR | Mode::S_IWUSR | Mode::S_IXUSR);
    let opened = OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    if kind.is_dir() {
        mkdirat(into, name, private)?;
        let made =
            openat(into, name, opened | OFlag::O_RDONLY | OFlag::O_DIRECTORY, Mode::empty())?;
        return copy_folder(from, &found, made);
    }
    if kind.is_file() {
        let flags = opened | OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL;
        let mut made = File::from(openat(into, name, flags, private)?);
        io::copy(&mut File::open(from)?, &mut made)?;
        return Ok(take_on(&made, &found)?);
    }
    if !kind.is_symlink() {
        return Ok(()); // a folder of the host has no device nodes, pipes and sockets of a guest
    }
    symlinkat(&fs::read_link(from)?, into, name)?;
    let (uid, gid) = (Uid::from_raw(found.uid()), Gid::from_raw(found.gid()));
    Ok(own(fchownat(into, name, Some(uid), Some(gid), AtFlags::AT_SYMLINK_NOFOLLOW)
        .map_err(io::Error::from))?)
}

/// Ignores a refused change of the owner: a folder of an ordinary user of the host has no other
/// owners, and neither have the images of such a user.
fn own(outcome: io::Result<()>) -> io::Result<()> {
    match outcome {
        Err(error) if error.raw_os_error() == Some(Errno::EPERM as i32) => Ok(()),
        outcome => outcome,
    }
}

fn take_on(made: &File, found: &Metadata) -> io::Result<()> {
    own(fchown(made, Some(found.uid()), Some(found.gid())))?;
    // After fchown, which clears set-uid bits.
    made.set_permissions(Permissions::from_mode(found.mode() & 0o7777))?;
    made.set_modified(found.modified()?)
}

/// Removes the contents of a folder.
fn clear(folder: OwnedFd) -> nix::Result<()> {
    for name in names(&folder)? {
        remove(&folder, &name)?;
    }
    Ok(())
}

fn remove(folder: &OwnedFd, name: &CStr) -> nix::Result<()> {
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Err(Errno::EISDIR | Errno::EPERM) => {
            let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
            clear(openat(folder, name, flags, Mode::empty())?)?;
            unlinkat(folder, name, UnlinkatFlags::RemoveDir)
        }
        outcome => outcome,
    }
}
