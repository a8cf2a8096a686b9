//! A pod without a machine: this program is the first process of namespaces that its caller created
//! on the host's kernel. Clock, random numbers and processors are the host's and left alone.

use std::ffi::CString;
use std::fs;
use std::io::ErrorKind;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::unistd::getpid;
use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::kind::Kind;

/// The parent of the host's folders, each named by its tag.
const SHARES: &str = "/run/vc/host";
const CGROUPS: &str = "/sys/fs/cgroup";

/// Prepares the namespaces.
///
/// `socket` is the number of an inherited listening socket, `folder` a folder that may be hidden,
/// and each of `shares` is "tag=path" or "tag:ro=path".
pub fn enter(socket: &str, folder: &str, shares: &[&str]) -> Result<UnixListener, Error> {
    if getpid().as_raw() != 1 {
        return Err(Error::failed("--sandbox needs to be the first process of a pid namespace"));
    }
    let number = socket.parse()?;
    // SAFETY: the caller has passed this descriptor, and nothing else owns it.
    let listener = UnixListener::from(unsafe { OwnedFd::from_raw_fd(number) });
    let none: Option<&str> = None;
    // Later mounts of the host must be visible here, but no mount of this namespace on the host.
    mount(none, "/", none, MsFlags::MS_SLAVE | MsFlags::MS_REC, none)?;
    make_run(folder, shares)?;
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounts =
        [("proc", "/proc", "proc"), ("sys", "/sys", "sysfs"), ("cgroup", CGROUPS, "cgroup2")];
    for (source, target, kind) in mounts {
        mount(Some(source), target, Some(kind), safe, none)
            .map_err(Error::context(format!("{target} cannot be mounted")))?;
    }
    mount(
        Some("tmp"),
        "/tmp",
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=1777"),
    )?;
    delegate()?;
    Ok(listener)
}

/// Creates a private /run with the folders of the host. It is created elsewhere first, because
/// these folders may be below the host's /run.
fn make_run(folder: &str, shares: &[&str]) -> Result<(), Error> {
    let none: Option<&str> = None;
    let sources: Vec<(String, bool, fs::File)> =
        shares.iter().map(|word| parse(word)).collect::<Result<_, _>>()?;
    mount(
        Some("run"),
        folder,
        Some("tmpfs"),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        Some("mode=755"),
    )?;
    for (tag, is_read_only, source) in &sources {
        let target = format!("{folder}{}/{tag}", SHARES.trim_start_matches("/run"));
        fs::create_dir_all(&target)?;
        bind(&format!("/proc/self/fd/{}", source.as_raw_fd()), &target, *is_read_only)?;
    }
    mount(Some(folder), "/run", none, MsFlags::MS_MOVE, none)?;
    Ok(())
}

fn parse(word: &str) -> Result<(String, bool, fs::File), Error> {
    let (name, path) = word
        .split_once('=')
        .ok_or_else(|| Error::Failed(format!("{word:?} is no share; tag=path is one")))?;
    let (tag, is_read_only) = name.strip_suffix(":ro").map_or((name, false), |tag| (tag, true));
    let file = fs::File::open(path)
        .map_err(Error::context(format!("the folder {path} cannot be opened")))?;
    Ok((tag.to_owned(), is_read_only, file))
}

/// Binds a folder with all mounts below it to another place.
pub fn bind(source: &str, target: &str, is_read_only: bool) -> Result<(), Error> {
    let none: Option<&str> = None;
    mount(Some(source), target, none, MsFlags::MS_BIND | MsFlags::MS_REC, none)?;
    if is_read_only { read_only(target) } else { Ok(()) }
}

/// mount_setattr(2), for all mounts of a tree at once: a remount would not change those below.
fn read_only(target: &str) -> Result<(), Error> {
    let attributes = libc::mount_attr {
        attr_set: libc::MOUNT_ATTR_RDONLY,
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    let path = CString::new(target)?;
    let (size, flags) = (size_of_val(&attributes), libc::AT_RECURSIVE);
    // SAFETY: the pointers are to a string and a structure that outlive the call, and the size is
    // that structure's.
    let outcome = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            libc::AT_FDCWD,
            path.as_ptr(),
            flags,
            &raw const attributes,
            size,
        )
    };
    Errno::result(outcome).map_err(Error::context(format!("{target} cannot be made read-only")))?;
    Ok(())
}

/// Enables the controllers that the host offers for containers. A control group with processes must
/// not enable any, so the agent moves its own to a child.
fn delegate() -> Result<(), Error> {
    let aside = Path::new(CGROUPS).join("agent");
    fs::create_dir_all(&aside)?;
    fs::write(aside.join("cgroup.procs"), "0")?;
    for name in fs::read_to_string(format!("{CGROUPS}/cgroup.controllers"))?.split_whitespace() {
        match fs::write(format!("{CGROUPS}/cgroup.subtree_control"), format!("+{name}")) {
            Err(error)
                if error.kind() == ErrorKind::NotFound
                    || error.raw_os_error() == Some(Errno::EBUSY as i32) => {}
            outcome => outcome?, // not found: the host keeps this one to itself
        }
    }
    Ok(())
}

const CAP_SYS_RESOURCE: u64 = 24; // capability.h

/// Returns whether containers here have to do without a device filter. An older crun (1.8) raises
/// RLIMIT_MEMLOCK before it loads one, which requires CAP_SYS_RESOURCE, and root may lack that, for
/// example in a container.
fn lacks_device_filter(kind: Kind) -> bool {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("CapEff:")).unwrap_or("0").trim();
    kind.is_sandbox()
        && u64::from_str_radix(mask, 16).is_ok_and(|mask| mask >> CAP_SYS_RESOURCE & 1 == 0)
}

/// crun continues without a device filter if no rule denies any device: therefore no container may
/// create device nodes.
pub fn adapt(kind: Kind, spec: &mut Value) {
    if lacks_device_filter(kind) {
        if let Some(rules) = spec["linux"]["resources"]["devices"].as_array_mut() {
            rules.retain(|rule| rule["allow"] == json!(true));
        }
        adapt_process(kind, &mut spec["process"]);
    }
}

/// The same for a further process.
pub fn adapt_process(kind: Kind, process: &mut Value) {
    if lacks_device_filter(kind)
        && let Some(sets) = process["capabilities"].as_object_mut()
    {
        for names in sets.values_mut().filter_map(Value::as_array_mut) {
            names.retain(|name| name != &json!("CAP_MKNOD"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_is_a_tag_and_a_folder() {
        let (tag, is_read_only, _) = parse("name=/tmp").unwrap();
        assert_eq!((tag.as_str(), is_read_only), ("name", false));
        let (tag, is_read_only, _) = parse("name:ro=/tmp").unwrap();
        assert_eq!((tag.as_str(), is_read_only), ("name", true));
        for word in ["", "name", "name=", "name=/nonesuch", "name=/a\0b"] {
            assert!(parse(word).is_err(), "{word:?}");
        }
    }
}
