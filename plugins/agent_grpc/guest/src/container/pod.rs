//! What the containers of a pod share: a pid namespace, /dev/shm, names of name servers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, pause};

use crate::Failure;
use crate::process::reaper::Reaper;

pub const PAUSE: &str = "--pause";
const PIDNS: &str = "/run/vc/pidns";
const SHM: &str = "/run/vc/shm";
const RESOLV_CONF: &str = "/run/vc/resolv.conf";

pub fn set_resolv_conf(text: &str) -> Result<(), Failure> {
    Ok(fs::write(RESOLV_CONF, text)?)
}

pub fn share_shm(bytes: u64) -> Result<(), Failure> {
    let options = format!("mode=1777,size={bytes}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if Path::new(SHM).exists() {
        return Ok(()); // set up before: containers may have it
    }
    fs::create_dir_all(SHM)?;
    Ok(mount(Some("shm"), SHM, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Starts the namespace's first process, which only lets orphans go, and keeps the namespace under
/// a path that does not change.
pub async fn share_pid(reaper: &Reaper) -> Result<(), Failure> {
    if Path::new(PIDNS).exists() {
        return Ok(()); // set up before
    }
    let _expecting = reaper.expect();
    let note = "/run/vc/pause";
    let output = fs::File::create(note)?;
    let child = Command::new("/proc/self/exe")
        .arg(PAUSE)
        .stdin(Stdio::null())
        .stdout(output)
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| {
            format!("the process that holds the pid namespace cannot be started: {error}")
        })?;
    let ended = reaper.claim(child.id().try_into()?).await?;
    if ended.code != 0 {
        return Err(
            format!("the process that holds the pid namespace ended with {}", ended.code).into()
        );
    }
    let pid: i32 = fs::read_to_string(note)?.trim().parse()?;
    fs::write(PIDNS, "")?;
    let namespace = format!("/proc/{pid}/ns/pid");
    Ok(mount(Some(namespace.as_str()), PIDNS, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// What `--pause` does: makes the namespace, leaves its first process behind, prints that one's
/// number.
pub fn hold_namespace() -> Result<(), Failure> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => println!("{child}"),
        ForkResult::Child => {
            // SAFETY: no handler of ours is installed. Ignored, the ends of orphans need nobody who
            // waits for them.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
            loop {
                pause();
            }
        }
    }
    Ok(())
}
