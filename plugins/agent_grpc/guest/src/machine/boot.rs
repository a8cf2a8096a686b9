//! From the kernel's first userspace instruction to a machine that is ready for containers.

use std::ffi::CString;
use std::fs::{self, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, symlink};
use std::path::Path;

use nix::errno::Errno;
use nix::fcntl::OFlag;
use nix::mount::{MsFlags, mount};
use nix::unistd::{chdir, chroot, dup2_stderr, execv};

use crate::error::Error;
use crate::machine::hotplug;
use crate::machine::modules::Modules;

pub const SECOND_STAGE: &str = "--second-stage";

/// Moves everything from the kernel's own root into a tmpfs and executes this program again there:
/// pivot_root(2), which containers need, does not work in the kernel's root.
pub fn move_root() -> Result<std::convert::Infallible, Error> {
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

/// Mounts what every program expects and loads the modules that every machine needs.
pub fn ready_machine() -> Result<Modules, Error> {
    let modules = Modules::default();
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
            Err(error) => {
                return Err(Error::context(format!("{target} cannot be mounted"))(error));
            }
        }
    }
    // The image has no device nodes, so the kernel was unable to open the console.
    let console =
        OpenOptions::new().write(true).custom_flags(OFlag::O_NOCTTY.bits()).open("/dev/console")?;
    dup2_stderr(console)?;
    modules.load("boot")?;
    if has_balloon()? {
        modules.load("balloon")?;
    }
    raise_loopback()?;
    hotplug::prepare_for_memory()?;
    fs::write("/sys/fs/cgroup/cgroup.subtree_control", "+cpu +memory +pids +io +cpuset")?;
    fs::create_dir_all("/run/vc")?;
    // SAFETY: this process has no other thread yet.
    unsafe { std::env::set_var("PATH", "/bin") };
    Ok(modules)
}

/// Returns whether the machine has a balloon for free page reporting: a virtio device of type 5
/// (virtio 1.2, section 5).
fn has_balloon() -> io::Result<bool> {
    for device in fs::read_dir("/sys/bus/virtio/devices")? {
        if fs::read_to_string(device?.path().join("device"))?.trim() == "0x0005" {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Programs of a pod connect to each other by 127.0.0.1: netdevice(7).
fn raise_loopback() -> Result<(), Error> {
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain numbers, for which zeroes are good values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one ifreq and keeps no pointer to it.
    unsafe { set_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}
