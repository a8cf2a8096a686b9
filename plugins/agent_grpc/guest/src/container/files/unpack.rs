//! Unpacks an archive of the host into a container's files. Existing files are replaced; existing
//! folders stay unchanged.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io::{self, ErrorKind, Read};
use std::os::unix::fs::PermissionsExt;
use std::path::{Component, Path, PathBuf};

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use nix::unistd::{Gid, Uid, chown};
use tar::{Archive, Entry, EntryType};

use crate::container::files::error::FilesError;

/// Unpacks the entry `name` and entries below it: into `path` where that is a folder, otherwise as
/// `path`, whose parent must exist. A `name` of "." unpacks everything into the folder `path`,
/// which is created unless it ends in "/".
pub fn write(input: impl Read, text: &str, name: &str) -> Result<(), FilesError> {
    let path = Path::new(text);
    let demands_folder = text.ends_with('/') || text.ends_with("/.");
    let existing_is_folder = match fs::metadata(path) {
        Ok(existing) => Some(existing.is_dir()),
        Err(error) if error.kind() == ErrorKind::NotFound => None,
        Err(error) => return Err(error.into()),
    };
    let (into, renamed) = match existing_is_folder {
        Some(true) => (path, None),
        Some(false) if name == "." => return Err(FilesError::unfit("it is no folder")),
        None if name == "." && demands_folder => return Err(FilesError::missing()),
        None if name == "." => {
            fs::create_dir(path)?;
            (path, None)
        }
        _ => {
            let parent = path.parent().ok_or_else(FilesError::missing)?;
            fs::metadata(parent)?;
            (parent, Some(path.file_name().ok_or_else(FilesError::missing)?))
        }
    };
    let mut archive = Archive::new(input);
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(true);
    let mut made = Vec::new();
    for entry in archive.entries().map_err(unfit)? {
        let mut entry = entry.map_err(unfit)?;
        let is_folder = entry.header().entry_type() == EntryType::Directory;
        let place = placed(into, &entry.path()?, renamed)?;
        if renamed.is_some() && place == path {
            match existing_is_folder {
                Some(false) if is_folder => {
                    return Err(FilesError::unfit(
                        "it is no folder, and a folder would replace it",
                    ));
                }
                None if demands_folder && !is_folder => return Err(FilesError::missing()),
                _ => (),
            }
        }
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?; // an archive of one file below folders need not have those
        }
        if !is_folder {
            unpack(&mut entry, &place, into, renamed)?;
        } else if let Err(error) = fs::create_dir(&place) {
            if !place.is_dir() {
                return Err(FilesError::Unfit(format!("{}: {error}", place.display())));
            }
        } else {
            // Its mode and time are set last: unpacking into it changes them.
            made.push((place, entry));
        }
    }
    for (place, mut entry) in made.into_iter().rev() {
        entry.unpack(&place)?;
    }
    // Reads what follows the last entry; otherwise the sender fails with a broken pipe.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

fn no_target() -> FilesError {
    FilesError::unfit("it is no archive: it has a link without a target")
}

/// Converts the owner of a file; an archive can contain larger ids than the kernel supports.
fn id(number: u64) -> Result<u32, FilesError> {
    u32::try_from(number).map_err(|_| FilesError::Unfit(format!("there is no user {number}")))
}

fn unfit(error: io::Error) -> FilesError {
    FilesError::Unfit(format!("it is no archive: {error}"))
}

fn unpack(
    entry: &mut Entry<'_, impl Read>,
    place: &Path,
    into: &Path,
    renamed: Option<&OsStr>,
) -> Result<(), FilesError> {
    if fs::symlink_metadata(place).is_ok_and(|existing| existing.is_dir()) {
        let text = format!("{} is a folder, and no folder would replace it", place.display());
        return Err(FilesError::Unfit(text));
    }
    let kind = match entry.header().entry_type() {
        EntryType::Link => {
            let target = entry.link_name()?.ok_or_else(no_target)?;
            let target = placed(into, &target, renamed)?;
            remove(place)?;
            return Ok(fs::hard_link(target, place)?);
        }
        EntryType::Fifo => SFlag::S_IFIFO,
        EntryType::Char => SFlag::S_IFCHR,
        EntryType::Block => SFlag::S_IFBLK,
        _ => {
            entry.unpack(place)?;
            return Ok(());
        }
    };
    let header = entry.header();
    let device = match kind {
        SFlag::S_IFIFO => 0, // its fields may be empty
        _ => makedev(
            header.device_major()?.unwrap_or(0).into(),
            header.device_minor()?.unwrap_or(0).into(),
        ),
    };
    let owner = (Uid::from_raw(id(header.uid()?)?), Gid::from_raw(id(header.gid()?)?));
    remove(place)?;
    mknod(place, kind, Mode::S_IRUSR | Mode::S_IWUSR, device).map_err(|error| {
        FilesError::Failed(format!("{} cannot be made: {error}", place.display()))
    })?;
    chown(place, Some(owner.0), Some(owner.1))?;
    Ok(fs::set_permissions(place, Permissions::from_mode(header.mode()? & 0o7777))?)
}

/// Removes what an entry replaces, as tar does.
fn remove(place: &Path) -> io::Result<()> {
    match fs::remove_file(place) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Returns the path of an entry, never outside of the folder.
fn placed(into: &Path, entry: &Path, renamed: Option<&OsStr>) -> Result<PathBuf, FilesError> {
    let mut parts = entry.components().filter(|part| *part != Component::CurDir);
    let mut place = into.to_owned();
    if let Some(name) = renamed {
        parts.next();
        place.push(name);
    }
    for part in parts {
        match part {
            Component::Normal(word) => place.push(word),
            _ => {
                let text =
                    format!("the archive has the path {}, which leads out of it", entry.display());
                return Err(FilesError::Unfit(text));
            }
        }
    }
    Ok(place)
}

#[cfg(test)]
mod tests {
    use tar::{Builder, Header};

    use super::*;

    /// An archive with one file under a name that tar itself would not write.
    fn archive(name: &str, entry_type: EntryType, link: &str) -> Vec<u8> {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(entry_type);
        header.set_mode(0o644);
        // SAFETY: takes nothing and cannot fail.
        let (uid, gid) = unsafe { (libc::geteuid(), libc::getegid()) };
        header.set_uid(uid.into());
        header.set_gid(gid.into());
        let content: &[u8] = if entry_type == EntryType::Regular { b"text" } else { b"" };
        header.set_size(content.len() as u64);
        header.set_cksum();
        let mut builder = Builder::new(Vec::new());
        builder.append(&header, content).unwrap();
        builder.into_inner().unwrap()
    }

    fn unpacked(bytes: &[u8], into: &Path) -> Result<(), FilesError> {
        write(bytes, &into.to_string_lossy(), ".")
    }

    #[test]
    fn no_path_leads_out_of_the_folder() {
        let outer = tempfile::tempdir().unwrap();
        let into = outer.path().join("into");
        fs::create_dir(&into).unwrap();
        let outside = outer.path().join("x");
        let absolute = outside.to_string_lossy().into_owned();
        for name in ["../x", "a/../../x", "..", "a/..", absolute.as_str()] {
            let outcome = unpacked(&archive(name, EntryType::Regular, ""), &into);
            assert!(matches!(outcome, Err(FilesError::Unfit(_))), "{name}: {outcome:?}");
        }
        for target in ["../x", absolute.as_str()] {
            fs::write(&outside, "secret").unwrap();
            let outcome = unpacked(&archive("link", EntryType::Link, target), &into);
            assert!(matches!(outcome, Err(FilesError::Unfit(_))), "{target}: {outcome:?}");
        }
        assert_eq!(fs::read_dir(&into).unwrap().count(), 0);
        assert_eq!(fs::read_to_string(&outside).unwrap(), "secret");
    }

    #[test]
    fn a_file_is_unpacked_into_a_folder_or_under_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let bytes = archive("./a", EntryType::Regular, "");
        unpacked(&bytes, folder.path()).unwrap();
        assert_eq!(fs::read_to_string(folder.path().join("a")).unwrap(), "text");
        let renamed = folder.path().join("b");
        write(&bytes[..], &renamed.to_string_lossy(), "a").unwrap();
        assert_eq!(fs::read_to_string(renamed).unwrap(), "text");
        let below = folder.path().join("nonesuch/b");
        assert!(write(&bytes[..], &below.to_string_lossy(), "a").is_err());
    }

    #[test]
    fn what_is_no_archive_or_ends_early_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let whole = archive("a", EntryType::Regular, "");
        assert!(unpacked(&whole[..513], folder.path()).is_err());
        assert!(unpacked(&whole[..100], folder.path()).is_err());
        assert!(unpacked(&[b'x'; 1024], folder.path()).is_err());
        unpacked(&[0; 1024], folder.path()).unwrap();
        unpacked(&[], folder.path()).unwrap();
        let target = EntryType::Link;
        assert!(unpacked(&archive("link", target, ""), folder.path()).is_err());
    }
}
