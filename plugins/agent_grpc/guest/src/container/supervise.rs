//! Tasks for the lifetime of a container: restarts and health checks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, timeout};

use crate::container::agent::Agent;
use crate::container::crun::Verb;
use crate::container::health::Health;
use crate::container::restart::Restart;
use crate::error::Error;
use crate::process::child::Process;
use crate::process::log::Kind;
use crate::process::log_pump::tell;
use crate::proto::{ExecRequest, Stdio};

/// The delay before a restart doubles with each, up to a limit, until a process has run for
/// long enough.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LASTING: Duration = Duration::from_secs(10);

impl Agent {
    /// Starts the tasks of a container.
    pub fn look_after(
        self: &Arc<Self>,
        id: &str,
        restart: Option<Arc<Restart>>,
        health: Option<Arc<Health>>,
    ) {
        if let Some(restart) = restart {
            let (agent, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move { agent.supervise(&id, &restart).await });
        }
        if let Some(health) = health {
            let (agent, id) = (self.clone(), id.to_owned());
            tokio::spawn(async move { agent.check_health(&id, &health).await });
        }
    }

    /// Restarts a container for as long as its policy requires it. Ends when no process follows.
    async fn supervise(&self, id: &str, restart: &Restart) {
        let mut pause = FIRST_PAUSE;
        loop {
            let first = self.containers.with(id, |container| container.first_process().cloned());
            let Ok(Some(process)) = first else { return }; // removed
            let began = Instant::now();
            let ended = process.ended().wait_for(Option::is_some).await.ok().and_then(|end| *end);
            let status = ended.unwrap_or_default();
            if let Some(log_pump) = &process.log_pump {
                log_pump.done().await;
            }
            if process.is_followed() {
                if began.elapsed() >= LASTING {
                    pause = FIRST_PAUSE;
                }
                tokio::select! {
                    () = sleep(pause) => (),
                    () = restart.stopped() => (),
                }
                pause = LONGEST_PAUSE.min(pause * 2);
                if !restart.is_unwanted() {
                    restart.note_start();
                    match self.run_again(id).await {
                        Ok(()) => continue,
                        Err(error) => {
                            eprintln!("vc-agent: container {id} cannot be started again: {error}");
                        }
                    }
                }
                self.log_last(id, status.exit_code).await;
            }
            restart.finish(status);
            return;
        }
    }

    /// Starts a new first process in place of one that has ended.
    async fn run_again(&self, id: &str) -> Result<(), Error> {
        let (launch, restarting) = self
            .containers
            .with(id, |container| (container.launch.clone(), container.restarting.clone()))?;
        let _turn = restarting.lock().await;
        let (crun_name, folder) = self.containers.crun_name(id)?;
        self.crun.delete(&crun_name, &folder).await?;
        if let Some(log) = &launch.log {
            log.append(Kind::Begun, Vec::new()).await?;
        }
        let process = launch.start_first(&self.crun, Verb::Run, &crun_name, &folder).await?;
        let process = Arc::new(process);
        if let Some(container) = self.containers.lock().get_mut(id) {
            container.processes.insert(container.first_token.clone(), process.clone());
        }
        if launch.restart.is_some_and(|restart| restart.is_unwanted()) {
            // The container was asked to end while there was no process to signal.
            process.kill();
        }
        Ok(())
    }

    /// Completes the log, whose last record announces a process that does not follow.
    async fn log_last(&self, id: &str, exit_code: i32) {
        let log = self.containers.with(id, |container| container.launch.log.clone());
        if let Ok(Some(log)) = log {
            tell(log.append(Kind::Last, exit_code.to_le_bytes().to_vec()).await);
        }
    }

    /// Runs the check periodically, until the container is gone.
    async fn check_health(&self, id: &str, health: &Health) {
        let interval = Duration::from_millis(health.check.interval_ms.max(1));
        let limit = Duration::from_millis(health.check.timeout_ms.max(1));
        let mut number = 0_u64;
        loop {
            sleep(interval).await;
            number += 1;
            let token = format!("_health{number}");
            if !self.is_checked_by(id, health) {
                return; // removed; the name may be in use again
            }
            let is_good = match self.run_check(id, &token, health).await {
                Err(_) => false, // impossible to execute: between two starts, or in general
                Ok(process) => {
                    let mut ended = process.ended();
                    let within = timeout(limit, ended.wait_for(Option::is_some)).await;
                    if within.is_err() {
                        process.kill();
                    }
                    let status = within.ok().and_then(Result::ok).and_then(|end| *end);
                    status.is_some_and(|status| status.exit_code == 0)
                }
            };
            if let Some(container) = self.containers.lock().get_mut(id) {
                container.processes.remove(&token);
            }
            health.note(is_good);
        }
    }

    fn is_checked_by(&self, id: &str, health: &Health) -> bool {
        let is_same = self.containers.with(id, |container| {
            container.health.as_deref().is_some_and(|own| std::ptr::eq(own, health))
        });
        is_same.unwrap_or(false)
    }

    async fn run_check(
        &self,
        id: &str,
        token: &str,
        health: &Health,
    ) -> Result<Arc<Process>, Error> {
        let request = ExecRequest {
            container_id: id.to_owned(),
            token: token.to_owned(),
            oci_process: health.check.oci_process.clone(),
            stdio: Stdio::Null.into(),
        };
        self.exec(request).await?;
        self.containers.process(id, token)
    }
}
