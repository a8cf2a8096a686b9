//! The host name of a container, in its UTS namespace and in its files.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{gethostname, sethostname};
use serde_json::{Value, json};

use crate::container::rootfs::Opened;
use crate::error::Error;
use crate::machine::identity;

/// An option of mounts that are made only where the root file system has the file.
const OPTIONAL: &str = "x-vc-optional";

/// The files with a container's name, in a file system of limited size, because the container may
/// write to it.
const NAMES: &str = "names";

fn hosts(name: &str) -> String {
    let more = fs::read_to_string(identity::HOSTS).unwrap_or_default(); // absent in tests
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n\
         127.0.0.1\t{name}\n{more}"
    )
}

/// Writes these files, where the container has such a folder.
pub fn write(container: &Path, name: &str) -> Result<(), Error> {
    let folder = container.join(NAMES);
    if folder.is_dir() {
        fs::write(folder.join("hosts"), hosts(name))?;
        fs::write(folder.join("hostname"), format!("{name}\n"))?;
    }
    Ok(())
}

/// Replaces the machine's former name by the new one in its containers: a machine that starts from
/// a saved one has containers already.
///
/// Args: `pids` are their first processes, `folders` the agent's folders for them.
pub fn change_all(
    pids: &[i32],
    folders: &[PathBuf],
    former: &OsStr,
    name: &str,
) -> Result<(), Error> {
    for pid in pids {
        rename(*pid, former, name)?;
    }
    for folder in folders {
        change(folder, &former.to_string_lossy(), name)?;
    }
    Ok(())
}

/// Writes the new name if both files still contain only the former one. The files are kept, because
/// they are mounted in the container.
fn change(container: &Path, former: &str, name: &str) -> Result<(), Error> {
    let is_as_written = |file: &str, text: String| {
        let path = container.join(NAMES).join(file);
        let has_size = fs::metadata(&path).is_ok_and(|meta| meta.len() == text.len() as u64);
        has_size && fs::read(&path).is_ok_and(|found| found == text.into_bytes())
    };
    if is_as_written("hosts", hosts(former)) && is_as_written("hostname", format!("{former}\n")) {
        write(container, name)?;
    }
    Ok(())
}

/// Changes the host name in a container's UTS namespace, unless the container has chosen its own.
fn rename(pid: i32, former: &OsStr, name: &str) -> Result<(), Error> {
    let namespace = match fs::File::open(format!("/proc/{pid}/ns/uts")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // it has ended just now
        opened => opened?,
    };
    // In a thread of its own, which does not have to return to the former namespace.
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| -> nix::Result<()> {
            setns(&namespace, CloneFlags::CLONE_NEWUTS)?;
            if gethostname()? == former {
                sethostname(name)?;
            }
            Ok(())
        });
        let outcome = renaming.join();
        Ok(outcome.map_err(|_| Error::failed("the thread that renames a container has died"))??)
    })
}

/// Removes optional mounts from a container's spec if its root file system does not have the file.
pub fn drop_absent_mounts(spec: &mut Value, root: &Opened) {
    let Some(mounts) = spec.get_mut("mounts").and_then(Value::as_array_mut) else { return };
    mounts.retain_mut(|mount| {
        let Some(options) = mount.get_mut("options").and_then(Value::as_array_mut) else {
            return true;
        };
        let before = options.len();
        options.retain(|option| option != &json!(OPTIONAL));
        let is_optional = options.len() < before;
        let target = mount["destination"].as_str().unwrap_or_default();
        !is_optional || root.has_file(target)
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_the_former_name_get_the_new_one_unless_somebody_wrote_to_them() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str| folder.path().join(NAMES).join(name);
        write(folder.path(), "one").unwrap();
        assert!(!file("hosts").exists(), "this container has none");
        fs::create_dir(folder.path().join(NAMES)).unwrap();
        write(folder.path(), "one").unwrap();
        change(folder.path(), "another", "two").unwrap();
        assert_eq!(fs::read_to_string(file("hostname")).unwrap(), "one\n");
        change(folder.path(), "one", "two").unwrap();
        assert_eq!(fs::read_to_string(file("hostname")).unwrap(), "two\n");
        assert!(fs::read_to_string(file("hosts")).unwrap().ends_with("\n127.0.0.1\ttwo\n"));
        fs::write(file("hosts"), "own").unwrap();
        change(folder.path(), "two", "three").unwrap();
        assert_eq!(fs::read_to_string(file("hostname")).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(file("hosts")).unwrap(), "own");
    }

    #[test]
    fn optional_mounts_are_dropped_where_there_is_no_such_file() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("there"), "").unwrap();
        let opened = Opened::folder(root.path()).unwrap();
        let mut spec = json!({ "mounts": [
            { "destination": "/there", "options": ["ro", OPTIONAL] },
            { "destination": "/absent", "options": [OPTIONAL] },
            { "destination": "/needed", "options": ["ro"] },
            { "destination": "/bare" },
        ] });
        drop_absent_mounts(&mut spec, &opened);
        assert_eq!(
            spec["mounts"],
            json!([
                { "destination": "/there", "options": ["ro"] },
                { "destination": "/needed", "options": ["ro"] },
                { "destination": "/bare" },
            ])
        );
        let mut none = json!({});
        drop_absent_mounts(&mut none, &opened);
        assert_eq!(none, json!({}));
    }
}
