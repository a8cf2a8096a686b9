//! Starts processes of a container with crun.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::container::crun::{Crun, Verb};
use crate::container::restart::Restart;
use crate::error::Error;
use crate::process::child::{Process, Started};
use crate::process::log::Log;
use crate::process::procfs::OomKills;
use crate::process::reaper::Reaper;
use crate::process::streams::{Handles, Streams, output_pipes, pipes, terminal_streams};
use crate::process::terminal::ConsoleSocket;
use crate::proto::Stdio;

/// How a process is started.
#[derive(Clone, Default)]
pub struct Launch {
    /// Id of the container.
    pub container: String,
    pub stdio: Stdio,
    pub is_terminal: bool,
    pub log: Option<Log>,
    /// Set for a first process only.
    pub restart: Option<Arc<Restart>>,
}

impl Launch {
    /// Returns a function that decides whether another process follows, given the exit code.
    pub fn is_followed(&self) -> Box<dyn FnOnce(i32) -> bool + Send> {
        let restart = self.restart.clone();
        Box::new(move |code| restart.is_some_and(|restart| restart.follows(code)))
    }

    /// Runs crun by `call` with the requested streams, and supervises the process that it leaves
    /// behind. `call` gets the path of the socket for a terminal.
    pub async fn start<F>(
        &self,
        reaper: &Reaper,
        folder: &Path,
        call: impl FnOnce(Option<PathBuf>, Handles) -> F,
    ) -> Result<Process, Error>
    where
        F: Future<Output = Result<i32, Error>>,
    {
        let _expecting = reaper.expect();
        let oom_kills = OomKills::begin(&self.container);
        let (pid, streams, terminal) = if self.is_terminal {
            let console = ConsoleSocket::bind(folder)?;
            let pid = call(Some(console.path.clone()), Handles::null()).await?;
            let master = console.receive()?;
            (pid, terminal_streams(&master)?, Some(master))
        } else {
            let (handles, streams) = match self.stdio {
                Stdio::Null => (Handles::null(), Streams::default()),
                Stdio::Pipes => pipes()?,
                Stdio::Log => output_pipes()?,
            };
            (call(None, handles).await?, streams, None)
        };
        Ok(Process::new(Started {
            pid,
            streams,
            terminal,
            end: reaper.claim(pid),
            log: self.log.clone(),
            is_followed: self.is_followed(),
            oom_kills,
        }))
    }

    /// Starts the first process of the container whose bundle is in `folder`.
    pub async fn start_first(
        &self,
        crun: &Crun,
        verb: Verb,
        crun_name: &str,
        folder: &Path,
    ) -> Result<Process, Error> {
        self.start(&crun.reaper, folder, |console, handles| {
            crun.create(verb, crun_name, folder, console, handles)
        })
        .await
    }
}
