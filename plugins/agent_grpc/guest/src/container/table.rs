//! The containers of this guest and their processes.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tonic::Status;
use tonic::metadata::MetadataValue;

use crate::Failure;
use crate::container::crun::{Crun, Handles, Refusal, Refused};
use crate::container::restart::Again;
use crate::container::rlimits;
use crate::container::rootfs::{self, Root, Turn};
use crate::container::users;
use crate::container::volumes;
use crate::container::warm_crun::{self, Spare};
use crate::machine::boot;
use crate::machine::identity;
use crate::machine::sandbox;
use crate::machine::uevents::Uevents;
use crate::process::child::{
    ConsoleSocket, Process, Streams, output_pipes, pipes, terminal_streams,
};
use crate::process::log::{Kind, Log};
use crate::process::procfs::{self, OomKills};
use crate::process::reaper::Reaper;
use crate::proto::{
    self, ContainerInfo, CreateContainerRequest, ProcessInfo, SignalRequest, Stdio,
};
use crate::storage::devices;
use crate::storage::mounts::Mounted;

const ROOT: &str = "/run/vc/containers";
/// The name of the metadata that says what is wrong with a program: "missing" or "not-executable".
const REFUSAL: &str = "vc-refusal";
const LAST_SIGNAL: i32 = 64;

pub(super) struct Container {
    /// By which crun knows it.
    pub(super) name: String,
    pub(super) folder: PathBuf,
    pub(super) rootfs: PathBuf,
    /// The token of its first process.
    pub(super) first: String,
    pub(super) mounted: Mounted,
    /// Of who reads its files.
    pub(super) turn: Turn,
    pub(super) processes: HashMap<String, Arc<Process>>,
    pub(super) again: Again,
}

pub struct Containers {
    pub events: Uevents,
    pub(super) crun: Crun,
    pub(super) reaper: Reaper,
    spare: Mutex<Option<Spare>>,
    table: Mutex<HashMap<String, Container>>,
}

impl Containers {
    pub fn new(reaper: Reaper, events: Uevents) -> Self {
        Self {
            events,
            crun: Crun::new(reaper.clone()),
            reaper,
            spare: Mutex::default(),
            table: Mutex::default(),
        }
    }

    pub async fn create(self: &Arc<Self>, request: CreateContainerRequest) -> Result<i32, Status> {
        let id = request.container_id.clone();
        if self.table().contains_key(&id) {
            return Err(Status::already_exists(format!("container {id} exists in this guest")));
        }
        let folder = Path::new(ROOT).join(&id);
        let mut mounted = Mounted::default();
        let turn = Turn::default();
        match self.make(&request, &folder, &mut mounted, turn.clone()).await {
            Ok((name, process, again)) => {
                let pid = process.pid;
                let kept = again.clone();
                let processes = HashMap::from([(request.token.clone(), Arc::new(process))]);
                let rootfs = request.rootfs.into();
                let first = request.token;
                let made =
                    Container { name, folder, rootfs, first, mounted, turn, processes, again };
                self.table().insert(id.clone(), made);
                self.look_after(id, kept);
                Ok(pid)
            }
            Err(error) => {
                // Undo in full before the client hears of it; what fails here too is told with it.
                let undo = procfs::kill_all(&id).and(mounted.remove()).and(remove_folder(&folder));
                let more = undo.err().map_or_else(String::new, |second| format!("; and: {second}"));
                Err(refusal(&error, &more))
            }
        }
    }

    /// Its name for crun, and its first process.
    async fn make(
        &self,
        request: &CreateContainerRequest,
        folder: &Path,
        mounted: &mut Mounted,
        turn: Turn,
    ) -> Result<(String, Process, Again), Failure> {
        fs::create_dir_all(folder)?;
        for storage in &request.storages {
            mounted.add(storage, &self.events).await?;
        }
        let mut spec: Value = serde_json::from_slice(&request.oci_spec)?;
        spec["root"]["path"] = json!(request.rootfs);
        spec["linux"]["cgroupsPath"] = json!(format!("/vc/{}", request.container_id));
        identity::write_names(folder, spec["hostname"].as_str().unwrap_or_default())?;
        rlimits::fit(&mut spec["process"]);
        let root = Root::Folder(request.rootfs.clone().into());
        let mut spec = rootfs::ask(root, turn, move |root| {
            users::complete(&mut spec["process"], root)?;
            identity::drop_absent_mounts(&mut spec, root);
            Ok(spec)
        })
        .await?;
        volumes::fill(&mut spec, &request.rootfs, folder, &self.reaper).await?;
        for device in &request.devices {
            mounted.hold(&device.driver, &device.address);
        }
        devices::add_nodes(&mut spec, &request.devices, &self.events).await?;
        let again = Again::wanted(request, self.open_log(request, mounted).await?);
        sandbox::adapt(&mut spec);
        let config = serde_json::to_vec(&spec)?;
        let again = Again { is_terminal: spec["process"]["terminal"] == json!(true), ..again };
        let is_plain = request.starts && !again.is_terminal && again.restart.is_none();
        if is_plain
            && request.stdio() == Stdio::Pipes
            && let Some(process) = self.run_spare(&config, &request.container_id).await?
        {
            return Ok((warm_crun::ID.to_owned(), process, again));
        }
        fs::write(folder.join("config.json"), config)?;
        let verb = if request.starts { "run" } else { "create" };
        let process = self.begin(verb, &request.container_id, folder, &again).await?;
        Ok((request.container_id.clone(), process, again))
    }

    pub(super) async fn begin(
        &self,
        verb: &str,
        name: &str,
        folder: &Path,
        again: &Again,
    ) -> Result<Process, Failure> {
        self.launch(folder, again, |console, handles| async {
            let console = console;
            self.crun.create(verb, name, folder, console.as_deref(), handles).await
        })
        .await
    }

    async fn open_log(
        &self,
        request: &CreateContainerRequest,
        mounted: &mut Mounted,
    ) -> Result<Option<Log>, Failure> {
        let Some(device) = &request.log else { return Ok(None) };
        mounted.hold(&device.driver, &device.address);
        let node = devices::find(device, &self.events).await?.ok_or("the log is on no disk")?;
        let log = Log::open(&node).map_err(|error| format!("the log on {node}: {error}"))?;
        log.append(Kind::Begun, Vec::new()).await?;
        Ok(Some(log))
    }

    async fn run_spare(&self, config: &[u8], id: &str) -> Result<Option<Process>, Failure> {
        let found = self.spare.lock().expect("no holder of this lock panics").take();
        let Some(spare) = found else { return Ok(None) };
        let _expecting = self.reaper.expect();
        let killed = OomKills::begin(id);
        let begun = spare.run(config).await?;
        Ok(begun.map(|(pid, streams)| {
            Process::new(pid, streams, None, self.reaper.claim(pid), None, None, killed)
        }))
    }

    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<(), Status> {
        let (name, folder) = self.known(id)?;
        let file = folder.join("resources.json");
        fs::write(&file, resources).map_err(|error| internal(error.into()))?;
        self.crun.update(&name, &folder, &file).await.map_err(internal)
    }

    /// Loads what every container needs, so that a machine cloned from this one need not. With
    /// containers that is done.
    pub async fn warm_up(&self) -> Result<(), Failure> {
        if !self.table().is_empty() {
            return Ok(());
        }
        for purpose in ["9p", "fuse", "overlay"] {
            boot::load_modules(purpose)?;
        }
        self.crun.warm_up().await?;
        if self.spare.lock().expect("no holder of this lock panics").is_none() {
            let spare = Spare::ready(&self.crun).await?;
            *self.spare.lock().expect("no holder of this lock panics") = Some(spare);
        }
        Ok(())
    }

    pub fn reaper(&self) -> &Reaper {
        &self.reaper
    }

    pub fn list(&self) -> Vec<ContainerInfo> {
        let ended = |container: &Container| {
            if let Some(restart) = &container.again.restart {
                return *restart.end().borrow();
            }
            *container.processes.get(&container.first)?.ended().borrow()
        };
        let table = self.table();
        let told = table.iter().map(|(id, container)| ContainerInfo {
            container_id: id.clone(),
            ended: ended(container),
            restarts: container.again.restart.as_ref().map_or(0, |restart| restart.count()),
            health: container
                .again
                .health
                .as_ref()
                .map_or(proto::Health::None, |health| health.state())
                .into(),
        });
        told.collect()
    }

    /// Of each container the process that it was made for, while that lives.
    pub fn first_processes(&self) -> Vec<i32> {
        let table = self.table();
        let firsts =
            table.values().filter_map(|container| container.processes.get(&container.first));
        firsts.filter(|process| process.is_alive()).map(|process| process.pid).collect()
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        self.table().values().map(|container| container.folder.clone()).collect()
    }

    pub async fn start(&self, id: &str) -> Result<(), Status> {
        let (name, folder) = self.known(id)?;
        self.crun.start(&name, &folder).await.map_err(|error| refusal(&error, ""))
    }

    /// Runs crun by `call` with the streams that are asked for, and takes charge of the process it
    /// leaves behind.
    pub(super) async fn launch<F>(
        &self,
        folder: &Path,
        again: &Again,
        call: impl FnOnce(Option<PathBuf>, Handles) -> F,
    ) -> Result<Process, Failure>
    where
        F: Future<Output = Result<i32, Failure>>,
    {
        let _expecting = self.reaper.expect();
        let (log, restart) = (again.log.clone(), again.restart.clone());
        let killed = OomKills::begin(&again.id);
        if again.is_terminal {
            let console = ConsoleSocket::bind(folder)?;
            let pid = call(Some(console.path.clone()), Handles::null()).await?;
            let (streams, master) = terminal_streams(console.receive()?)?;
            return Ok(Process::new(
                pid,
                streams,
                Some(master),
                self.reaper.claim(pid),
                log,
                restart,
                killed,
            ));
        }
        let (handles, streams) = match again.stdio {
            Stdio::Null => (Handles::null(), Streams::default()),
            Stdio::Pipes => pipes()?,
            Stdio::Log => output_pipes()?,
        };
        let pid = call(None, handles).await?;
        Ok(Process::new(pid, streams, None, self.reaper.claim(pid), log, restart, killed))
    }

    pub fn process(&self, id: &str, token: &str) -> Result<Arc<Process>, Status> {
        let table = self.table();
        let container = table.get(id).ok_or_else(|| unknown(id))?;
        let process = container.processes.get(token);
        process
            .cloned()
            .ok_or_else(|| Status::not_found(format!("container {id} has no process {token}")))
    }

    pub async fn signal(&self, request: &SignalRequest) -> Result<(), Status> {
        let number = i32::try_from(request.signal)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        if !(1..=LAST_SIGNAL).contains(&number) {
            return Err(Status::invalid_argument(format!("there is no signal {number}")));
        }
        let id = &request.container_id;
        self.note_end(id, &request.token, number);
        if request.token.is_empty() {
            let (name, folder) = self.known(id)?;
            return self.crun.kill_all(&name, &folder, number).await.map_err(internal);
        }
        let process = self.process(id, &request.token)?;
        if !process.is_alive() {
            return Err(Status::failed_precondition(format!(
                "process {} has ended",
                request.token
            )));
        }
        process.signal(number).map_err(|error| internal(error.into()))
    }

    /// Kills what is left of the container and forgets it. Of an unknown container nothing is left:
    /// no error.
    pub async fn remove(&self, id: &str) -> Result<(), Status> {
        let Ok((name, folder)) = self.known(id) else { return Ok(()) };
        self.note_end(id, "", Signal::SIGKILL as i32);
        let turn =
            self.table().get(id).map(|container| container.again.turn.clone()).unwrap_or_default();
        let _turn = turn.lock().await;
        self.crun.delete(&name, &folder).await.map_err(internal)?;
        let Some(mut container) = self.table().remove(id) else { return Ok(()) };
        if let Some(logged) =
            container.processes.get(&container.first).and_then(|process| process.logged.clone())
        {
            logged.done().await; // before its disk goes
        }
        container.mounted.remove().and(remove_folder(&container.folder)).map_err(internal)
    }

    pub async fn remove_all(&self) -> Result<(), Status> {
        let ids: Vec<String> = self.table().keys().cloned().collect();
        for id in ids {
            self.remove(&id).await?;
        }
        Ok(())
    }

    pub fn check(&self, id: &str) -> Result<(), Status> {
        self.known(id).map(drop)
    }

    /// What runs in it. The words of a process's command lie in its memory, which may be a file
    /// that never answers.
    pub async fn list_processes(&self, id: &str) -> Result<Vec<ProcessInfo>, Status> {
        let turn = self
            .table()
            .get(id)
            .map(|container| container.turn.clone())
            .ok_or_else(|| unknown(id))?;
        let id = id.to_owned();
        rootfs::beside(turn, move || procfs::processes(&id)).await.map_err(internal)
    }

    /// Its name for crun, and its folder.
    pub(super) fn known(&self, id: &str) -> Result<(String, PathBuf), Status> {
        let table = self.table();
        table
            .get(id)
            .map(|container| (container.name.clone(), container.folder.clone()))
            .ok_or_else(|| unknown(id))
    }

    pub(super) fn table(&self) -> MutexGuard<'_, HashMap<String, Container>> {
        self.table.lock().expect("no holder of this lock panics")
    }
}

pub(super) fn remove_folder(folder: &Path) -> Result<(), Failure> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Why there is no process. Where that is its program, the metadata says so: the text is for
/// people.
pub(super) fn refusal(error: &Failure, more: &str) -> Status {
    let told = format!("{error}{more}");
    let word = match error.downcast_ref::<Refused>().map(|refused| refused.why) {
        None => return Status::internal(told),
        Some(Refusal::Missing) => "missing",
        Some(Refusal::NotExecutable) => "not-executable",
    };
    let mut status = Status::failed_precondition(told);
    status.metadata_mut().insert(REFUSAL, MetadataValue::from_static(word));
    status
}

pub(super) fn unknown(id: &str) -> Status {
    Status::not_found(format!("no container {id} in this guest"))
}

pub fn internal(error: Failure) -> Status {
    Status::internal(error.to_string())
}
