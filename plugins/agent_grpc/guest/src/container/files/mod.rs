//! `vc-agent --files VERB ROOT PATH NAME`: a process that accesses a container's files and answers
//! on its standard streams.
//!
//! It is a process of its own, because it enters the container's mount namespace: paths are
//! resolved there, and no link leads out of it. Archives are in the GNU tar format, which keeps
//! links and holes of files.

pub mod error;
pub mod pack;
pub mod unpack;

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{MetadataExt, chroot};
use std::path::Path;

use nix::sched::{CloneFlags, setns};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::{Value, json};

use crate::container::files::error::FilesError;
use crate::error::Error;

pub const WORD: &str = "--files";

pub fn serve(verb: &str, root: &str, path: &str, name: &str) -> Result<(), Error> {
    enter(root)?;
    let outcome = match verb {
        "read" => pack::read(Path::new(path), name),
        "write" => unpack::write(io::stdin(), path, name),
        "list" => list(Path::new(path)),
        "watch" => watch(Path::new(path)),
        other => Err(FilesError::Failed(format!("no verb {other}"))),
    };
    // One line for the client, instead of the agent's own error output.
    if let Err(error) = outcome {
        eprintln!("{path}: {}", error.line());
        std::process::exit(error.exit_code());
    }
    Ok(())
}

/// `root` is the pid of a process, whose mount namespace is entered, or a folder.
fn enter(root: &str) -> Result<(), Error> {
    match root.strip_prefix("pid:") {
        Some(pid) => setns(File::open(format!("/proc/{pid}/ns/mnt"))?, CloneFlags::CLONE_NEWNS)?,
        None => chroot(root)?,
    }
    std::env::set_current_dir("/")?;
    Ok(())
}

/// Writes one line of JSON for each entry of a folder, or for the file itself.
fn list(path: &Path) -> Result<(), FilesError> {
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
            writeln!(out, "{line}")?; // removed meanwhile
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
    let target =
        fs::read_link(path).map(|target| target.to_string_lossy().into_owned()).unwrap_or_default();
    let mtime_ns = meta.mtime() * 1_000_000_000 + meta.mtime_nsec();
    Ok(json!({
        "name": name, "kind": kind, "size": meta.len(), "mode": meta.mode() & 0o7777,
        "uid": meta.uid(), "gid": meta.gid(),
        "mtime_ns": mtime_ns, "target": target,
    }))
}

/// Writes one line of JSON for each change in a folder or of a file, after an empty object when the
/// watch has begun.
fn watch(path: &Path) -> Result<(), FilesError> {
    use AddWatchFlags as Flag;
    let inotify = Inotify::init(InitFlags::IN_CLOEXEC)?;
    let own = Flag::IN_DELETE_SELF | Flag::IN_MOVE_SELF;
    inotify.add_watch(
        path,
        Flag::IN_CREATE | Flag::IN_CLOSE_WRITE | Flag::IN_DELETE | Flag::IN_MOVE | own,
    )?;
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
