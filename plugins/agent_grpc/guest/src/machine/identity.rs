//! What one guest must not have in common with another, a clone of the same machine: random
//! numbers, name, ids, clock.

use std::ffi::OsStr;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use nix::sched::{CloneFlags, setns};
use nix::unistd::{gethostname, sethostname};
use serde_json::{Value, json};

use crate::Failure;
use crate::container::rootfs::Opened;
use crate::machine::online;
use crate::machine::sandbox;
use crate::proto::SetUpPodRequest;

const FOLDER: &str = "/run/vc/identity";
const OPTIONAL: &str = "x-vc-optional";

/// The seed comes first: what is made up here must differ between clones.
///
/// A machine that goes on from a saved one has containers already: those that bore its old name
/// bear the new one.
pub fn take(
    request: &SetUpPodRequest,
    processes: &[i32],
    containers: &[PathBuf],
) -> Result<(), Failure> {
    if !request.seed.is_empty() && !sandbox::is_one() {
        online::seed(&request.seed)?;
    }
    if request.time_ns != 0 && !sandbox::is_one() {
        online::set_time(request.time_ns)?;
    }
    if !request.hostname.is_empty() {
        let former = gethostname()?;
        online::set_hostname(&request.hostname)?;
        for pid in processes {
            rename(*pid, &former, &request.hostname)?;
        }
        for container in containers {
            change_names(container, &former.to_string_lossy(), &request.hostname)?;
        }
    }
    fs::create_dir_all(FOLDER)?;
    // The kernel makes its own boot id up once; a guest that goes on from a saved one needs
    // another.
    fs::write(format!("{FOLDER}/boot-id"), fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
    fs::write(format!("{FOLDER}/machine-id"), format!("{}\n", request.machine_id))?;
    Ok(())
}

/// The files that tell a container its name, in a folder of its own, whose size is limited: the
/// container may write to it.
const NAMES: &str = "names";

fn hosts(name: &str) -> String {
    format!(
        "127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\nfe00::\tip6-localnet\n\
         ff00::\tip6-mcastprefix\nff02::1\tip6-allnodes\nff02::2\tip6-allrouters\n127.0.0.1\t{name}\n"
    )
}

/// Writes them, where the container has such a folder.
pub fn write_names(container: &Path, name: &str) -> Result<(), Failure> {
    let folder = container.join(NAMES);
    if folder.is_dir() {
        fs::write(folder.join("hosts"), hosts(name))?;
        fs::write(folder.join("hostname"), format!("{name}\n"))?;
    }
    Ok(())
}

/// Writes the new name where the former one stands and nothing else was written. The files stay the
/// same: they are mounted in the container.
pub fn change_names(container: &Path, former: &str, name: &str) -> Result<(), Failure> {
    let is_as_written = |file: &str, text: String| {
        let path = container.join(NAMES).join(file);
        let has_size = fs::metadata(&path).is_ok_and(|meta| meta.len() == text.len() as u64);
        has_size && fs::read(&path).is_ok_and(|found| found == text.into_bytes())
    };
    if is_as_written("hosts", hosts(former)) && is_as_written("hostname", format!("{former}\n")) {
        write_names(container, name)?;
    }
    Ok(())
}

/// Changes the host name in a container's name space, unless that has one of its own choice.
fn rename(pid: i32, former: &OsStr, name: &str) -> Result<(), Failure> {
    let namespace = match fs::File::open(format!("/proc/{pid}/ns/uts")) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()), // it has ended just now
        opened => opened?,
    };
    // In a thread of its own: a thread that has gone there need not come back.
    std::thread::scope(|scope| {
        let renaming = scope.spawn(|| -> nix::Result<()> {
            setns(&namespace, CloneFlags::CLONE_NEWUTS)?;
            if gethostname()? == former {
                sethostname(name)?;
            }
            Ok(())
        });
        renaming
            .join()
            .map_err(|_| "the thread that renames a container has died")?
            .map_err(Failure::from)
    })
}

/// Takes mounts out of a container's spec that are wanted only where its root file system has the
/// file.
pub fn drop_absent_mounts(spec: &mut Value, root: &Opened) {
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    mounts.retain_mut(|mount| {
        let Some(options) = mount["options"].as_array_mut() else { return true };
        let before = options.len();
        options.retain(|option| option != &json!(OPTIONAL));
        let is_optional = options.len() < before;
        let target = mount["destination"].as_str().unwrap_or_default();
        !is_optional || root.has_file(target)
    });
}
