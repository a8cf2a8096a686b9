//! Operations on a container between its creation and its end.

use std::fs;
use std::path::Path;

use nix::sys::signal::Signal;
use tokio::sync::watch;

use crate::container::agent::Agent;
use crate::container::folder::remove_folder;
use crate::container::rootfs;
use crate::error::Error;
use crate::machine::power;
use crate::process::child::Process;
use crate::process::procfs;
use crate::proto::{ContainerStatsReply, ProcessInfo, SignalRequest, WaitReply};

const LAST_SIGNAL: i32 = 64;

impl Agent {
    pub async fn start(&self, id: &str) -> Result<(), Error> {
        let (crun_name, folder) = self.containers.crun_name(id)?;
        self.crun.start(&crun_name, &folder).await
    }

    /// Changes the limits of a container.
    pub async fn update(&self, id: &str, resources: &[u8]) -> Result<(), Error> {
        let (crun_name, folder) = self.containers.crun_name(id)?;
        let file = folder.join("resources.json");
        fs::write(&file, resources)?;
        self.crun.update(&crun_name, &folder, &file).await
    }

    pub fn stats(&self, id: &str) -> Result<ContainerStatsReply, Error> {
        self.containers.check(id)?;
        procfs::stats(id)
    }

    /// Lists the processes of a container. The command line of a process is in its memory, which
    /// may be mapped from a file that never responds.
    pub async fn list_processes(&self, id: &str) -> Result<Vec<ProcessInfo>, Error> {
        let reading = self.containers.with(id, |container| container.reading.clone())?;
        let id = id.to_owned();
        rootfs::beside(reading, move || procfs::processes(&id)).await
    }

    pub async fn signal(&self, request: &SignalRequest) -> Result<(), Error> {
        let number = signal_number(request.signal)?;
        let (id, token) = (&request.container_id, &request.token);
        self.note_end(id, token, number);
        if token.is_empty() {
            let (crun_name, folder) = self.containers.crun_name(id)?;
            return self.crun.kill_all(&crun_name, &folder, number).await;
        }
        let process = self.containers.process(id, token)?;
        if !process.is_alive() {
            return Err(Error::ProcessEnded(token.clone()));
        }
        Ok(process.signal(number)?)
    }

    /// Records a signal that asks the container to end: it is not restarted.
    fn note_end(&self, id: &str, token: &str, number: i32) {
        let table = self.containers.lock();
        let Some(container) = table.get(id) else { return };
        let is_first = token.is_empty() || token == container.first_token;
        let ends = [Signal::SIGTERM as i32, Signal::SIGKILL as i32, container.stop_signal];
        if let Some(restart) = &container.launch.restart
            && is_first
            && ends.contains(&number)
        {
            restart.stop();
        }
    }

    /// Returns how a process ended, when it has; a first process only when no other follows. Its
    /// log is complete by then.
    pub async fn end_of(&self, id: &str, token: &str) -> Result<WaitReply, Error> {
        let process = self.containers.process(id, token)?;
        let restart = self.containers.with(id, |container| {
            let is_first = container.first_token == token;
            container.launch.restart.clone().filter(|_| is_first)
        })?;
        let mut end: watch::Receiver<_> =
            restart.map_or_else(|| process.ended(), |restart| restart.end());
        let reply = *end.wait_for(Option::is_some).await?;
        if let Some(log_pump) = &process.log_pump {
            log_pump.done().await;
        }
        reply.ok_or_else(|| Error::failed("the process has no end"))
    }

    /// Kills all processes of the container and removes it. An unknown container is no error.
    pub async fn remove(&self, id: &str) -> Result<(), Error> {
        let Ok((crun_name, folder)) = self.containers.crun_name(id) else { return Ok(()) };
        self.note_end(id, "", Signal::SIGKILL as i32);
        let restarting = self.containers.with(id, |container| container.restarting.clone());
        let restarting = restarting.unwrap_or_default();
        let _turn = restarting.lock().await;
        self.crun.delete(&crun_name, &folder).await?;
        let Some(mut container) = self.containers.lock().remove(id) else { return Ok(()) };
        if let Some(log_pump) = container.first_process().and_then(|first| first.log_pump.clone()) {
            log_pump.done().await; // before its disk is removed
        }
        container.mounts.remove(&self.mounts).and(remove_folder(Path::new(&container.folder)))
    }

    /// Ends what a client has held: a process, and the machine if that is asked for.
    pub async fn let_go(&self, process: &Process, ends_machine: bool) -> Result<(), Error> {
        process.kill();
        if ends_machine {
            // What containers have written to shared files is written back by their removal.
            if let Err(error) = self.remove_all().await {
                eprintln!("vc-agent: a container is not removed: {error}");
            }
            match power::power_off()? {}
        }
        Ok(())
    }

    pub async fn remove_all(&self) -> Result<(), Error> {
        let ids: Vec<String> = self.containers.lock().keys().cloned().collect();
        for id in ids {
            self.remove(&id).await?;
        }
        Ok(())
    }
}

fn signal_number(number: u32) -> Result<i32, Error> {
    let wrong = || Error::InvalidRequest(format!("there is no signal {number}"));
    let number = i32::try_from(number).map_err(|_| wrong())?;
    if (1..=LAST_SIGNAL).contains(&number) { Ok(number) } else { Err(wrong()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_are_from_1_to_64() {
        assert_eq!(signal_number(1).unwrap(), 1);
        assert_eq!(signal_number(64).unwrap(), 64);
        for number in [0, 65, u32::MAX] {
            assert!(matches!(signal_number(number), Err(Error::InvalidRequest(_))), "{number}");
        }
    }
}
