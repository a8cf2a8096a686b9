//! From the kernel's first userspace instruction to a machine in which containers can be made.

use std::collections::HashSet;
use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;
use std::sync::{LazyLock, Mutex};

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, dup2_stderr, execv};

use crate::Failure;
use crate::machine::online;

pub const SECOND_STAGE: &str = "--second-stage";
const MODULES: &str = "/lib/modules";

/// Moves everything from the kernel's own root into a tmpfs and runs this program again there: the
/// kernel's root can not be pivoted, and containers want to be.
pub fn move_root() -> Result<std::convert::Infallible, Failure> {
    fs::create_dir("/root.new")?;
    mount(Some("root"), "/root.new", Some("tmpfs"), MsFlags::empty(), Some("mode=755"))?;
    move_tree(Path::new("/"), Path::new("/root.new"), fs::metadata("/")?.dev())?;
    chdir("/root.new")?;
    mount(Some("."), "/", None::<&str>, MsFlags::MS_MOVE, None::<&str>)?;
    chroot(".")?;
    chdir("/")?;
    Ok(execv(c"/init", &[c"/init", &CString::new(SECOND_STAGE)?])?)
}

fn move_tree(from: &Path, to: &Path, device: u64) -> io::Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let (source, target) = (entry.path(), to.join(entry.file_name()));
        let meta = fs::symlink_metadata(&source)?;
        if meta.dev() != device {
            continue; // the new root itself, and what the kernel has mounted
        }
        if meta.is_dir() {
            fs::create_dir(&target)?;
            fs::set_permissions(&target, fs::Permissions::from_mode(meta.mode() & 0o7777))?;
            move_tree(&source, &target, device)?;
        } else if meta.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if meta.is_file() {
            fs::copy(&source, &target)?;
            fs::remove_file(&source)?;
        }
    }
    Ok(())
}

pub fn ready_machine() -> Result<(), Failure> {
    let nothing = MsFlags::empty();
    let safe = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    let mounts = [
        ("proc", "/proc", "proc", safe, ""),
        ("sys", "/sys", "sysfs", safe, ""),
        ("dev", "/dev", "devtmpfs", MsFlags::MS_NOSUID, "mode=755"),
        (
            "pts",
            "/dev/pts",
            "devpts",
            MsFlags::MS_NOSUID | MsFlags::MS_NOEXEC,
            "ptmxmode=0666,mode=620,gid=5",
        ),
        ("run", "/run", "tmpfs", MsFlags::MS_NOSUID | MsFlags::MS_NODEV, "mode=755"),
        ("tmp", "/tmp", "tmpfs", nothing, "mode=1777"),
        ("cgroup", "/sys/fs/cgroup", "cgroup2", safe, ""),
    ];
    for (source, target, kind, flags, data) in mounts {
        fs::create_dir_all(target)?;
        match mount(Some(source), target, Some(kind), flags, Some(data)) {
            Ok(()) | Err(Errno::EBUSY) => {} // busy: the kernel has mounted devtmpfs by itself
            Err(error) => return Err(format!("{target} cannot be mounted: {error}").into()),
        }
    }
    // The image has no device nodes, so that the kernel could not open the console for us.
    let console =
        OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open("/dev/console")?;
    dup2_stderr(console)?;
    load_modules("boot")?;
    if has_balloon()? {
        load_modules("balloon")?;
    }
    online::raise_loopback()?;
    online::prepare_for_memory()?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io +cpuset")?;
    fs::create_dir_all("/run/vc")?;
    // SAFETY: nobody else runs yet in this process.
    unsafe { std::env::set_var("PATH", "/bin") };
    Ok(())
}

/// Whether the machine wants to be told of free memory: a device of the virtio kind 5 (virtio 1.2,
/// section 5).
fn has_balloon() -> io::Result<bool> {
    for device in fs::read_dir("/sys/bus/virtio/devices")? {
        if fs::read_to_string(device?.path().join("device"))?.trim() == "0x0005" {
            return Ok(true);
        }
    }
    Ok(false)
}

static LOADED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// Loads the modules that the image lists under `purpose`, once. Where there is no list (not PID 1)
/// the host has its own.
pub fn load_modules(purpose: &str) -> Result<(), Failure> {
    let mut loaded = LOADED.lock().map_err(|_| "module table poisoned")?;
    if !loaded.insert(purpose.to_owned()) {
        return Ok(());
    }
    let Ok(list) = fs::read_to_string(format!("{MODULES}/{purpose}.list")) else { return Ok(()) };
    for name in list.lines() {
        let file = fs::File::open(format!("{MODULES}/{name}"))?;
        match finit_module(&file, c"", ModuleInitFlags::empty()) {
            Ok(()) | Err(Errno::EEXIST) => {}
            Err(error) => return Err(format!("the module {name} cannot be loaded: {error}").into()),
        }
    }
    Ok(())
}
