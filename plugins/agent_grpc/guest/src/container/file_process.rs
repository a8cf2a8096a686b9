//! Processes of the agent's own that have a container's files before them.

use std::process::Command;
use std::sync::Arc;

use tonic::Status;

use crate::Failure;
use crate::container::files;
use crate::container::table::{Containers, internal, unknown};
use crate::process::child::{Process, pipes};
use crate::process::procfs::OomKills;
use crate::proto::FilesRequest;

impl Containers {
    pub async fn files(&self, request: FilesRequest) -> Result<i32, Status> {
        let id = &request.container_id;
        let root = {
            let table = self.table();
            let container = table.get(id).ok_or_else(|| unknown(id))?;
            match container.processes.get(&container.first).filter(|process| process.is_alive()) {
                Some(process) => format!("pid:{}", process.pid),
                None => container.rootfs.to_string_lossy().into_owned(),
            }
        };
        let process = self.begin_files(&request, &root).map_err(internal)?;
        let pid = process.pid;
        match self.table().get_mut(id) {
            Some(container) => drop(container.processes.insert(request.token, Arc::new(process))),
            None => process.kill(), // removed meanwhile
        }
        Ok(pid)
    }

    fn begin_files(&self, request: &FilesRequest, root: &str) -> Result<Process, Failure> {
        let _expecting = self.reaper.expect();
        let (handles, streams) = pipes()?;
        let mut command = Command::new("/proc/self/exe");
        command.args([files::WORD, &request.verb, root, &request.path, &request.name]);
        let child =
            command.stdin(handles.stdin).stdout(handles.stdout).stderr(handles.stderr).spawn()?;
        let pid = i32::try_from(child.id())?;
        Ok(Process::new(
            pid,
            streams,
            None,
            self.reaper.claim(pid),
            None,
            None,
            OomKills::nowhere(),
        ))
    }
}
