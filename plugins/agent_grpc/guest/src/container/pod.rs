//! What the containers of a pod share: a pid namespace, /dev/shm, names of name servers.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::signal::{SigHandler, Signal, signal};
use nix::unistd::{ForkResult, fork, pause};
use serde_json::{Value, json};

use crate::container::agent::Agent;
use crate::container::names;
use crate::error::Error;
use crate::machine::{identity, network};
use crate::process::reaper::Reaper;
use crate::proto::SetUpPodRequest;
use crate::storage::mounts::ContainerMounts;

pub const PAUSE: &str = "--pause";
const PIDNS: &str = "/run/vc/pidns";
const SHM: &str = "/run/vc/shm";
const RESOLV_CONF: &str = "/run/vc/resolv.conf";

impl Agent {
    /// Sets the guest's identity, and creates what containers share. May be called again.
    pub async fn set_up_pod(&self, request: &SetUpPodRequest) -> Result<(), Error> {
        if let Some(former) = identity::take(self.machine.kind, request)? {
            let (pids, folders) = (self.containers.first_pids(), self.containers.folders());
            names::change_all(&pids, &folders, &former, &request.hostname)?;
        }
        if !request.resolv_conf.is_empty() {
            set_resolv_conf(&request.resolv_conf)?;
        }
        let is_template = request.hostname.is_empty();
        network::configure_all(&request.networks, is_template, &self.machine).await?;
        if request.shm_bytes != 0 {
            share_shm(request.shm_bytes)?;
        }
        if request.shared_pid {
            share_pid(&self.reaper).await?;
        }
        Ok(())
    }

    /// Keeps the pid namespace of a container at a path, for another one. It exists there as long
    /// as the other one, whose restarts fail when the first process of the namespace has ended.
    pub fn keep_pid_namespace(
        &self,
        owner: &str,
        point: &Path,
        mounts: &mut ContainerMounts,
    ) -> Result<(), Error> {
        let first = self.containers.with(owner, |container| container.first_process().cloned())?;
        let ended = || Error::ProcessEnded(owner.to_owned());
        let first = first.filter(|process| process.is_alive()).ok_or_else(ended)?;
        mounts.bind_namespace(&self.mounts, &format!("/proc/{}/ns/pid", first.pid), point)?;
        // The pid was not that of another process meanwhile.
        if first.is_alive() { Ok(()) } else { Err(ended()) }
    }
}

/// Makes a container join the pid namespace at a path.
pub fn join_pid_namespace(spec: &mut Value, point: &Path) {
    let joined = json!({ "type": "pid", "path": point });
    match spec["linux"]["namespaces"].as_array_mut() {
        Some(namespaces) => {
            namespaces.retain(|one| one["type"] != "pid");
            namespaces.push(joined);
        }
        None => spec["linux"]["namespaces"] = json!([joined]),
    }
}

fn set_resolv_conf(text: &str) -> Result<(), Error> {
    Ok(fs::write(RESOLV_CONF, text)?)
}

fn share_shm(bytes: u64) -> Result<(), Error> {
    let options = format!("mode=1777,size={bytes}");
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    if Path::new(SHM).exists() {
        return Ok(()); // set up before: containers may use it
    }
    fs::create_dir_all(SHM)?;
    Ok(mount(Some("shm"), SHM, Some("tmpfs"), flags, Some(options.as_str()))?)
}

/// Starts the first process of the pid namespace, which only reaps orphans, and keeps the namespace
/// under a constant path.
async fn share_pid(reaper: &Reaper) -> Result<(), Error> {
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
        .map_err(Error::context("the process that holds the pid namespace cannot be started"))?;
    let ended = reaper.claim(child.id().try_into()?).await?;
    if ended.code != 0 {
        let code = ended.code;
        return Err(Error::Failed(format!(
            "the process that holds the pid namespace ended with {code}"
        )));
    }
    let pid: i32 = fs::read_to_string(note)?.trim().parse()?;
    fs::write(PIDNS, "")?;
    let namespace = format!("/proc/{pid}/ns/pid");
    Ok(mount(Some(namespace.as_str()), PIDNS, None::<&str>, MsFlags::MS_BIND, None::<&str>)?)
}

/// Implements `--pause`: creates the namespace, leaves its first process behind, and prints the pid
/// of that.
pub fn hold_namespace() -> Result<(), Error> {
    unshare(CloneFlags::CLONE_NEWPID)?;
    // SAFETY: this process has one thread.
    match unsafe { fork() }? {
        ForkResult::Parent { child } => println!("{child}"),
        ForkResult::Child => {
            // SAFETY: this process installs no handler. With SIGCHLD ignored, orphans need not be
            // waited for.
            unsafe { signal(Signal::SIGCHLD, SigHandler::SigIgn) }?;
            loop {
                pause();
            }
        }
    }
    Ok(())
}
