//! Processes of the agent itself that access a container's files.

use std::process::Command;
use std::sync::Arc;

use crate::container::agent::Agent;
use crate::container::files;
use crate::error::Error;
use crate::process::child::{Process, Started};
use crate::process::procfs::OomKills;
use crate::process::streams::pipes;
use crate::proto::FilesRequest;

impl Agent {
    /// Starts such a process; returns its pid.
    pub async fn files(&self, request: FilesRequest) -> Result<i32, Error> {
        let id = &request.container_id;
        let root = match self.containers.root_or_pid(id)? {
            Ok(pid) => format!("pid:{pid}"),
            Err(path) => path.to_string_lossy().into_owned(),
        };
        let process = self.begin_files(&request, &root)?;
        let pid = process.pid;
        match self.containers.lock().get_mut(id) {
            Some(container) => {
                container.processes.insert(request.token, Arc::new(process));
            }
            None => process.kill(), // removed meanwhile
        }
        Ok(pid)
    }

    fn begin_files(&self, request: &FilesRequest, root: &str) -> Result<Process, Error> {
        let _expecting = self.reaper.expect();
        let (handles, streams) = pipes()?;
        let mut command = Command::new("/proc/self/exe");
        command.args([files::WORD, &request.verb, root, &request.path, &request.name]);
        let command = command.stdin(handles.stdin).stdout(handles.stdout).stderr(handles.stderr);
        let pid = i32::try_from(command.spawn()?.id())?;
        Ok(Process::new(Started {
            pid,
            streams,
            terminal: None,
            end: self.reaper.claim(pid),
            log: None,
            is_followed: Box::new(|_| false),
            oom_kills: OomKills::nowhere(),
        }))
    }
}
