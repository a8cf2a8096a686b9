//! Creates containers.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};

use crate::container::agent::Agent;
use crate::container::crun::Verb;
use crate::container::folder::remove_folder;
use crate::container::health::Health;
use crate::container::launch::Launch;
use crate::container::restart::Restart;
use crate::container::rootfs::{self, Root, Turn};
use crate::container::table::Container;
use crate::container::{document, names, pod, rlimits, users, volumes};
use crate::error::Error;
use crate::machine::kind::Kind as MachineKind;
use crate::machine::sandbox;
use crate::process::child::{Process, Started};
use crate::process::log::{Kind, Log};
use crate::process::procfs::{self, OomKills};
use crate::proto::{CreateContainerRequest, RestartPolicy, Stdio};
use crate::storage::devices::nodes;
use crate::storage::mounts::ContainerMounts;

const ROOT: &str = "/run/vc/containers";
const PIDNS: &str = "pidns";

struct Made {
    crun_name: String,
    process: Process,
    launch: Launch,
}

impl Agent {
    /// Creates a container and its first process; returns the pid of that.
    pub async fn create(self: &Arc<Self>, request: CreateContainerRequest) -> Result<i32, Error> {
        let id = request.container_id.clone();
        if self.containers.check(&id).is_ok() {
            return Err(Error::ContainerExists(id));
        }
        let folder = Path::new(ROOT).join(&id);
        let mut mounts = ContainerMounts::default();
        let reading = Turn::default();
        let made = match self.make(&request, &folder, &mut mounts, reading.clone()).await {
            Ok(made) => made,
            Err(error) => {
                // The undo is complete before the client gets the error; a failure of the undo is
                // part of it.
                let unmounted = mounts.remove(&self.mounts);
                let undo = procfs::kill_all(&id).and(unmounted).and(remove_folder(&folder));
                let Err(undoing) = undo else { return Err(error) };
                return Err(Error::NotUndone { cause: error.into(), undoing: undoing.into() });
            }
        };
        let (pid, is_running) = (made.process.pid, request.starts);
        let restart = request.restart.unwrap_or_default();
        let container = Container {
            crun_name: made.crun_name,
            folder,
            rootfs: request.rootfs.into(),
            processes: HashMap::from([(request.token.clone(), Arc::new(made.process))]),
            first_token: request.token,
            mounts,
            reading,
            launch: made.launch,
            stop_signal: i32::try_from(restart.stop_signal).unwrap_or_default(),
            health: request.health.map(|check| Arc::new(Health::new(check))),
            restarting: Turn::default(),
        };
        let (restart, health) = (container.launch.restart.clone(), container.health.clone());
        self.containers.lock().insert(id.clone(), container);
        self.look_after(&id, restart, health);
        if !is_running && self.machine.kind == MachineKind::Vm {
            self.prepare_next();
        }
        Ok(pid)
    }

    async fn make(
        &self,
        request: &CreateContainerRequest,
        folder: &Path,
        mounts: &mut ContainerMounts,
        reading: Turn,
    ) -> Result<Made, Error> {
        fs::create_dir_all(folder)?;
        for storage in &request.storages {
            mounts.add(&self.mounts, storage, &self.machine).await?;
        }
        let mut spec = document::spec(&request.oci_spec)?;
        spec["root"]["path"] = json!(request.rootfs);
        spec["linux"]["cgroupsPath"] = json!(format!("/vc/{}", request.container_id));
        names::write(folder, spec["hostname"].as_str().unwrap_or_default())?;
        rlimits::fit(&mut spec["process"]);
        let root = Root::Folder(request.rootfs.clone().into());
        let mut spec = rootfs::ask(root, reading, move |root| {
            users::complete(&mut spec["process"], root)?;
            names::drop_absent_mounts(&mut spec, root);
            Ok(spec)
        })
        .await?;
        volumes::fill(&mut spec, &request.rootfs, folder, &self.reaper).await?;
        for device in &request.devices {
            mounts.hold(&self.mounts, &device.driver, &device.address);
        }
        nodes::add(&mut spec, &request.devices, &self.machine).await?;
        if !request.pid_container_id.is_empty() {
            let point = folder.join(PIDNS);
            self.keep_pid_namespace(&request.pid_container_id, &point, mounts)?;
            pod::join_pid_namespace(&mut spec, &point);
        }
        sandbox::adapt(self.machine.kind, &mut spec);
        // For bridges the kernel would call modprobe, which is not in a machine.
        if administers_network(&spec["process"]) {
            self.machine.modules.load("bridge")?;
        }
        let launch = Launch {
            container: request.container_id.clone(),
            stdio: request.stdio(),
            is_terminal: spec["process"]["terminal"] == json!(true),
            log: self.open_log(request, mounts).await?,
            restart: restart_of(request),
        };
        let config = serde_json::to_vec(&spec)?;
        let verb = if request.starts { Verb::Run } else { Verb::Create };
        // crun tells hooks its own id of the container.
        let has_hooks = spec.get("hooks").is_some();
        let is_plain = !launch.is_terminal && launch.restart.is_none() && !has_hooks;
        if is_plain
            && launch.stdio == Stdio::Pipes
            && let Some((crun_name, process)) = self.make_warm(verb, &config, &launch).await?
        {
            return Ok(Made { crun_name, process, launch });
        }
        fs::write(folder.join("config.json"), config)?;
        let crun_name = request.container_id.clone();
        let process = launch.start_first(&self.crun, verb, &crun_name, folder).await?;
        Ok(Made { crun_name, process, launch })
    }

    async fn open_log(
        &self,
        request: &CreateContainerRequest,
        mounts: &mut ContainerMounts,
    ) -> Result<Option<Log>, Error> {
        let Some(device) = &request.log else { return Ok(None) };
        mounts.hold(&self.mounts, &device.driver, &device.address);
        let node = nodes::find(device, &self.machine).await?;
        let node = node.ok_or_else(|| Error::failed("the log is on no disk"))?;
        let log = Log::open(&node, &self.log_gate);
        let log = log.map_err(Error::context(format!("the log on {node}")))?;
        log.append(Kind::Begun, Vec::new()).await?;
        Ok(Some(log))
    }

    /// Makes the container with the waiting crun, and returns its id there; None when there is none.
    async fn make_warm(
        &self,
        verb: Verb,
        config: &[u8],
        launch: &Launch,
    ) -> Result<Option<(String, Process)>, Error> {
        let Some(warm_crun) = self.warm_cruns.take(verb) else { return Ok(None) };
        let id = warm_crun.id.clone();
        let _expecting = self.reaper.expect();
        let oom_kills = OomKills::begin(&launch.container);
        let Some((pid, streams)) = warm_crun.make(config).await? else { return Ok(None) };
        let process = Process::new(Started {
            pid,
            streams,
            terminal: None,
            end: self.reaper.claim(pid),
            log: None,
            is_followed: launch.is_followed(),
            oom_kills,
        });
        Ok(Some((id, process)))
    }

    /// Starts a crun for the next container, while the host prepares to start this one: an engine
    /// that creates containers to start them later has several in a pod.
    fn prepare_next(self: &Arc<Self>) {
        let agent = self.clone();
        tokio::spawn(async move {
            if let Err(error) = agent.warm_cruns.prepare(&agent.crun, Verb::Create).await {
                eprintln!("vc-agent: no crun waits for the next container: {error}");
            }
        });
    }
}

fn restart_of(request: &CreateContainerRequest) -> Option<Arc<Restart>> {
    let restart = request.restart.unwrap_or_default();
    let is_wanted = restart.policy() != RestartPolicy::No;
    is_wanted.then(|| Arc::new(Restart::new(restart.policy(), restart.max_retries)))
}

/// Whether a process may make interfaces.
fn administers_network(process: &Value) -> bool {
    let names = process["capabilities"]["effective"].as_array();
    names.is_some_and(|names| names.contains(&json!("CAP_NET_ADMIN")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_administers_the_network_has_the_capability_in_effect() {
        let with = |names: &[&str]| json!({"capabilities": {"effective": names, "bounding": ["CAP_NET_ADMIN"]}});
        assert!(administers_network(&with(&["CAP_KILL", "CAP_NET_ADMIN"])));
        assert!(!administers_network(&with(&["CAP_KILL"])));
        assert!(!administers_network(&json!({})));
    }
}
