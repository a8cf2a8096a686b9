//! Containers that are started again, and looked after meanwhile.

use std::sync::Arc;

use nix::sys::signal::Signal;
use tokio::sync::Mutex;
use tonic::Status;

use crate::Failure;
use crate::container::supervise::{self, Health, Restart};
use crate::container::table::Containers;
use crate::process::child::Process;
use crate::process::log::{Kind, Log};
use crate::process::log_pump::tell;
use crate::proto::{
    CreateContainerRequest, ExecRequest, HealthCheck, RestartPolicy, Stdio, WaitReply,
};

/// What it takes to start it again, and to look after it.
#[derive(Clone, Default)]
pub struct Again {
    /// Of the container.
    pub id: String,
    pub restart: Option<Arc<Restart>>,
    pub stop_signal: i32,
    pub health: Option<Arc<Health>>,
    pub log: Option<Log>,
    pub stdio: Stdio,
    pub is_terminal: bool,
    /// Held by who starts it again, and by who removes it: what is being removed must not begin
    /// once more.
    pub turn: Arc<Mutex<()>>,
}

impl Again {
    pub fn wanted(request: &CreateContainerRequest, log: Option<Log>) -> Self {
        let wanted = request.restart.unwrap_or_default();
        let restart = (wanted.policy() != RestartPolicy::No)
            .then(|| Restart::new(wanted.policy(), wanted.max_retries));
        Self {
            id: request.container_id.clone(),
            restart: restart.map(Arc::new),
            stop_signal: i32::try_from(wanted.stop_signal).unwrap_or_default(),
            health: request.health.clone().map(|check| Arc::new(Health::new(check))),
            log,
            stdio: request.stdio(),
            ..Self::default()
        }
    }
}

impl Containers {
    /// Starts tasks that last as long as the container.
    pub fn look_after(self: &Arc<Self>, id: String, again: Again) {
        if let Some(restart) = again.restart {
            let (containers, id) = (self.clone(), id.clone());
            tokio::spawn(async move { supervise::supervise(&containers, &id, &restart).await });
        }
        if let Some(health) = again.health {
            let containers = self.clone();
            tokio::spawn(async move { supervise::look_after(&containers, &id, &health).await });
        }
    }

    /// A new first process in place of one that has ended.
    pub async fn run_again(&self, id: &str) -> Result<(), Failure> {
        let again = self
            .table()
            .get(id)
            .map(|container| container.again.clone())
            .ok_or("it was removed")?;
        let _turn = again.turn.lock().await;
        let (name, folder) = self.known(id).map_err(|status| status.message().to_owned())?;
        self.crun.delete(&name, &folder).await?;
        if let Some(log) = &again.log {
            log.append(Kind::Begun, Vec::new()).await?;
        }
        let process = self.begin("run", &name, &folder, &again).await?;
        let process = Arc::new(process);
        if let Some(container) = self.table().get_mut(id) {
            container.processes.insert(container.first.clone(), process.clone());
        }
        if again.restart.is_some_and(|restart| restart.is_unwanted()) {
            // whoever wants the end found no process to signal while this one was made
            process.kill();
        }
        Ok(())
    }

    /// Whoever follows the log of a container was told that another process comes, and none does.
    pub async fn log_last(&self, id: &str, exit_code: i32) {
        let log = self.table().get(id).and_then(|container| container.again.log.clone());
        if let Some(log) = log {
            tell(log.append(Kind::Last, exit_code.to_le_bytes().to_vec()).await);
        }
    }

    pub fn first_process(&self, id: &str) -> Option<Arc<Process>> {
        let table = self.table();
        let container = table.get(id)?;
        container.processes.get(&container.first).cloned()
    }

    pub fn is_checked_by(&self, id: &str, health: &Health) -> bool {
        let table = self.table();
        let found = table.get(id).and_then(|container| container.again.health.as_deref());
        found.is_some_and(|found| std::ptr::eq(found, health))
    }

    pub async fn run_check(
        &self,
        id: &str,
        token: &str,
        check: &HealthCheck,
    ) -> Result<Arc<Process>, Status> {
        let (container_id, token) = (id.to_owned(), token.to_owned());
        let request = ExecRequest {
            container_id,
            token: token.clone(),
            oci_process: check.oci_process.clone(),
            stdio: 0,
        };
        self.exec(request).await?;
        self.process(id, &token)
    }

    pub fn forget_check(&self, id: &str, token: &str) {
        if let Some(container) = self.table().get_mut(id) {
            container.processes.remove(token);
        }
    }

    /// A signal that asks the container to end: it is not started again.
    pub fn note_end(&self, id: &str, token: &str, number: i32) {
        let table = self.table();
        let Some(container) = table.get(id) else { return };
        let is_first = token.is_empty() || token == container.first;
        let ends = [Signal::SIGTERM as i32, Signal::SIGKILL as i32, container.again.stop_signal]
            .contains(&number);
        if let Some(restart) = &container.again.restart
            && is_first
            && ends
        {
            restart.stop();
        }
    }

    /// How a process has ended, when it has; the first one only when no other follows. A log has
    /// all of it then.
    pub async fn end_of(&self, id: &str, token: &str) -> Result<WaitReply, Status> {
        let (mut ended, logged) = {
            let process = self.process(id, token)?;
            let table = self.table();
            let first = table.get(id).filter(|container| container.first == token);
            let restart = first.and_then(|container| container.again.restart.clone());
            (
                restart.map_or_else(|| process.ended(), |restart| restart.end()),
                process.logged.clone(),
            )
        };
        let found = *ended
            .wait_for(Option::is_some)
            .await
            .map_err(|error| Status::internal(error.to_string()))?;
        if let Some(logged) = logged {
            logged.done().await;
        }
        found.ok_or_else(|| Status::internal("the process has no end"))
    }
}
