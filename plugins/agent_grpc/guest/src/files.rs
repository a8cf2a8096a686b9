//! `vc-agent --files VERB ROOT PATH NAME`: a process with a container's files before it, whose streams are the answer.
//!
//! A process of its own, for it enters the container's mount namespace: what a path means there, the container says, and
//! no link leads out of it. Archives are GNU tar: links and holes of files stay what they are.

use std::collections::HashMap;
use std::ffi::OsStr;
use std::fs::{self, File, Metadata};
use std::io::{self, BufWriter, Write};
use std::iter;
use std::os::unix::fs::{FileTypeExt, MetadataExt, chroot};
use std::path::{Component, Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};
use tar::{Archive, Builder, EntryType, Header};

use crate::Failure;

pub const WORD: &str = "--files";

pub fn serve(verb: &str, root: &str, path: &str, name: &str) -> Result<(), Failure> {
    enter(root)?;
    let path = Path::new(path);
    let outcome = match verb {
        "read" => read(path, name),
        "write" => write(path, name),
        "list" => list(path),
        "watch" => watch(path),
        other => Err(format!("no verb {other}").into()),
    };
    // In one line, for whoever asked: the agent's own way of failing is not theirs.
    if let Err(error) = outcome {
        let causes = iter::successors(error.source(), |cause| cause.source());
        let told: String = causes.map(|cause| format!(": {cause}")).collect();
        eprintln!("{}: {error}{told}", path.display());
        std::process::exit(1);
    }
    Ok(())
}

/// `root` is that of a process, whose mount namespace is then ours, or a folder.
fn enter(root: &str) -> Result<(), Failure> {
    match root.strip_prefix("pid:") {
        Some(pid) => setns(File::open(format!("/proc/{pid}/ns/mnt"))?, CloneFlags::CLONE_NEWNS)?,
        None => chroot(root)?,
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Packs a file or folder under a name; under its own when that is empty.
fn read(path: &Path, name: &str) -> Result<(), Failure> {
    let found = fs::symlink_metadata(path)?;
    let own = path.file_name().unwrap_or(OsStr::new("."));
    let name = if name.is_empty() { PathBuf::from(own) } else { PathBuf::from(name) };
    let mut archive = Builder::new(BufWriter::with_capacity(64 << 10, io::stdout()));
    archive.follow_symlinks(false);
    archive.sparse(true);
    pack(&mut archive, path, &name, &found, &mut HashMap::new())?;
    archive.into_inner()?.flush()?;
    Ok(())
}

type Links = HashMap<(u64, u64), PathBuf>;

fn pack<W: Write>(archive: &mut Builder<W>, path: &Path, name: &Path, meta: &Metadata, links: &mut Links) -> io::Result<()> {
    let kind = meta.file_type();
    if kind.is_socket() {
        return Ok(()); // it means nothing to anybody else
    }
    if !kind.is_dir() && meta.nlink() > 1 {
        let first = links.entry((meta.dev(), meta.ino())).or_insert_with(|| name.to_owned());
        if first != name {
            let mut header = Header::new_gnu();
            header.set_metadata(meta);
            header.set_entry_type(EntryType::Link);
            header.set_size(0);
            return archive.append_link(&mut header, name, first);
        }
    }
    archive.append_path_with_name(path, name)?;
    if kind.is_dir() {
        let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
        entries.sort_by_key(fs::DirEntry::file_name);
        for entry in entries {
            match entry.metadata() {
                Ok(found) => pack(archive, &entry.path(), &name.join(entry.file_name()), &found, links)?,
                Err(error) if error.kind() == io::ErrorKind::NotFound => (), // removed meanwhile
                Err(error) => return Err(error),
            }
        }
    }
    Ok(())
}

/// Unpacks what comes as `name` or below: into `path` where that is a folder, else as `path`, whose folder must exist. A
/// `name` of "." is all that comes, into the folder `path`.
fn write(path: &Path, name: &str) -> Result<(), Failure> {
    let is_folder = fs::metadata(path).is_ok_and(|found| found.is_dir());
    let (into, renamed) = if is_folder || name == "." {
        fs::create_dir_all(path)?;
        (path, None)
    } else {
        let parent = path.parent().ok_or("it is no path of a file")?;
        (parent, Some(path.file_name().ok_or("it is no path of a file")?))
    };
    if !fs::metadata(into)?.is_dir() {
        return Err(format!("{} is no folder", into.display()).into());
    }
    let mut archive = Archive::new(io::stdin());
    archive.set_preserve_permissions(true);
    archive.set_preserve_ownerships(true);
    archive.set_preserve_mtime(true);
    archive.set_unpack_xattrs(true);
    let mut folders = Vec::new();
    for entry in archive.entries()? {
        let mut entry = entry?;
        let place = placed(into, &entry.path()?, renamed)?;
        if let Some(parent) = place.parent() {
            fs::create_dir_all(parent)?; // an archive of one file below folders need not have those
        }
        match entry.header().entry_type() {
            EntryType::Directory => {
                fs::create_dir_all(&place)?;
                folders.push((place, entry)); // its mode and time last: what is unpacked in it changes them
            }
            EntryType::Link => {
                let target = entry.link_name()?.ok_or("a link without a target")?;
                let target = placed(into, &target, renamed)?;
                let _ = fs::remove_file(&place); // as tar: what was there is replaced; what cannot be is told below
                fs::hard_link(target, &place)?;
            }
            _ => {
                entry.unpack(&place)?;
            }
        }
    }
    for (place, mut entry) in folders.into_iter().rev() {
        entry.unpack(&place)?;
    }
    // What is left behind the last entry, so that whoever writes is not told of a broken pipe.
    io::copy(&mut archive.into_inner(), &mut io::sink())?;
    Ok(())
}

/// Where an entry goes: never above the folder.
fn placed(into: &Path, entry: &Path, renamed: Option<&OsStr>) -> Result<PathBuf, Failure> {
    let mut parts = entry.components().filter(|part| *part != Component::CurDir);
    let mut place = into.to_owned();
    if let Some(name) = renamed {
        parts.next();
        place.push(name);
    }
    for part in parts {
        match part {
            Component::Normal(word) => place.push(word),
            _ => return Err(format!("the archive has the path {}, which leads out of it", entry.display()).into()),
        }
    }
    Ok(place)
}

/// One line of JSON for each entry of a folder, or for a file itself.
fn list(path: &Path) -> Result<(), Failure> {
    let mut out = BufWriter::new(io::stdout());
    if !fs::metadata(path)?.is_dir() {
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        writeln!(out, "{}", described(&name, path)?)?;
        return Ok(out.flush()?);
    }
    let mut entries = fs::read_dir(path)?.collect::<Result<Vec<_>, _>>()?;
    entries.sort_by_key(fs::DirEntry::file_name);
    for entry in entries {
        if let Ok(line) = described(&entry.file_name().to_string_lossy(), &entry.path()) {
            writeln!(out, "{line}")?; // one that was removed meanwhile is not there
        }
    }
    Ok(out.flush()?)
}

fn described(name: &str, path: &Path) -> io::Result<Value> {
    let meta = fs::symlink_metadata(path)?;
    let kind = meta.file_type();
    let kind = match () {
        () if kind.is_dir() => "folder",
        () if kind.is_symlink() => "link",
        () if kind.is_file() => "file",
        () => "special",
    };
    let target = fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    Ok(json!({
        "name": name, "kind": kind, "size": meta.len(), "mode": meta.mode() & 0o7777, "uid": meta.uid(), "gid": meta.gid(),
        "mtime_ns": mtime_ns, "target": target,
    }))
}

/// One line of JSON for each change in a folder or of a file; the first, empty one says that it has begun.
fn watch(path: &Path) -> Result<(), Failure> {
    use AddWatchFlags as Flag;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let own = Flag::IN_DELETE_SELF | Flag::IN_MOVE_SELF;
    inotify.add_watch(path, Flag::IN_CREATE | Flag::IN_CLOSE_WRITE | Flag::IN_DELETE | Flag::IN_MOVE | own)?;
    let mut out = io::stdout();
    writeln!(out, "{}", json!({}))?;
    out.flush()?;
    loop {
        for event in inotify.read_events()? {
            let change = match () {
                () if event.mask.intersects(Flag::IN_CREATE | Flag::IN_MOVED_TO) => "created",
                () if event.mask.contains(Flag::IN_CLOSE_WRITE) => "written",
                () if event.mask.intersects(Flag::IN_DELETE | Flag::IN_MOVED_FROM) => "deleted",
                () if event.mask.intersects(own) => return Ok(()),
                () => continue,
            };
            let name = event.name.unwrap_or_default();
            writeln!(out, "{}", json!({"name": name.to_string_lossy(), "change": change}))?;
            out.flush()?;
        }
    }
}
