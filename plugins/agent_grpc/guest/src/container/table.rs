//! The containers of this guest.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, MutexGuard};

use crate::container::health::Health;
use crate::container::launch::Launch;
use crate::container::rootfs::{Root, Turn};
use crate::error::Error;
use crate::process::child::Process;
use crate::proto::{self, ContainerInfo};
use crate::storage::mounts::ContainerMounts;

pub struct Container {
    /// The id of the container for crun.
    pub crun_name: String,
    pub folder: PathBuf,
    pub rootfs: PathBuf,
    /// Token of the first process.
    pub first_token: String,
    pub mounts: ContainerMounts,
    /// Held while its files are read.
    pub reading: Turn,
    /// Processes by token.
    pub processes: HashMap<String, Arc<Process>>,
    /// How its first process is started.
    pub launch: Launch,
    pub stop_signal: i32,
    pub health: Option<Arc<Health>>,
    /// Held during a restart and during removal: a container that is being removed must not
    /// be restarted.
    pub restarting: Turn,
}

impl Container {
    pub fn first_process(&self) -> Option<&Arc<Process>> {
        self.processes.get(&self.first_token)
    }

    fn living_process(&self) -> Option<&Arc<Process>> {
        self.first_process().filter(|process| process.is_alive())
    }

    fn info(&self, id: &str) -> ContainerInfo {
        let restart = self.launch.restart.as_ref();
        let ended = match restart {
            Some(restart) => *restart.end().borrow(),
            None => self.first_process().and_then(|process| *process.ended().borrow()),
        };
        let health = self.health.as_ref().map_or(proto::Health::None, |health| health.state());
        ContainerInfo {
            container_id: id.to_owned(),
            ended,
            restarts: restart.map_or(0, |restart| restart.count()),
            health: health.into(),
        }
    }
}

#[derive(Default)]
pub struct Containers(Mutex<HashMap<String, Container>>);

impl Containers {
    pub fn lock(&self) -> MutexGuard<'_, HashMap<String, Container>> {
        self.0.lock()
    }

    /// Returns the result of `look` for a container.
    pub fn with<T>(&self, id: &str, look: impl FnOnce(&Container) -> T) -> Result<T, Error> {
        self.lock().get(id).map(look).ok_or_else(|| Error::NoContainer(id.to_owned()))
    }

    pub fn check(&self, id: &str) -> Result<(), Error> {
        self.with(id, |_| ())
    }

    /// Returns the id for crun, and the folder.
    pub fn crun_name(&self, id: &str) -> Result<(String, PathBuf), Error> {
        self.with(id, |container| (container.crun_name.clone(), container.folder.clone()))
    }

    /// Whether a token is that of the container's first process.
    pub fn is_first(&self, id: &str, token: &str) -> bool {
        self.with(id, |container| container.first_token == token).unwrap_or(false)
    }

    pub fn process(&self, id: &str, token: &str) -> Result<Arc<Process>, Error> {
        let process = self.with(id, |container| container.processes.get(token).cloned())?;
        let unknown = || Error::NoProcess { container: id.to_owned(), token: token.to_owned() };
        process.ok_or_else(unknown)
    }

    /// Returns the container's root as seen by its first process, while that runs, and the lock of
    /// its readers.
    pub fn root(&self, id: &str) -> Result<(Root, Turn), Error> {
        self.with(id, |container| {
            let root = match container.living_process() {
                Some(process) => Root::of_process(process.pid)?,
                None => Root::Folder(container.rootfs.clone()),
            };
            Ok((root, container.reading.clone()))
        })?
    }

    /// Returns the pid of the first process, while that runs, otherwise the path of the root.
    pub fn root_or_pid(&self, id: &str) -> Result<Result<i32, PathBuf>, Error> {
        self.with(id, |container| match container.living_process() {
            Some(process) => Ok(process.pid),
            None => Err(container.rootfs.clone()),
        })
    }

    pub fn list(&self) -> Vec<ContainerInfo> {
        self.lock().iter().map(|(id, container)| container.info(id)).collect()
    }

    /// Returns the first processes of all containers, as far as they run.
    pub fn first_pids(&self) -> Vec<i32> {
        let table = self.lock();
        table.values().filter_map(|container| Some(container.living_process()?.pid)).collect()
    }

    pub fn folders(&self) -> Vec<PathBuf> {
        self.lock().values().map(|container| container.folder.clone()).collect()
    }
}
