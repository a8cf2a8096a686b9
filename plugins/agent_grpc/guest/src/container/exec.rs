//! Starts further processes in a container.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::json;

use crate::container::agent::Agent;
use crate::container::folder::remove_folder;
use crate::container::launch::Launch;
use crate::container::{document, rlimits, rootfs, users};
use crate::error::Error;
use crate::machine::sandbox;
use crate::process::child::Process;
use crate::process::procfs;
use crate::proto::ExecRequest;

impl Agent {
    /// Starts a process in a container; returns its pid.
    pub async fn exec(&self, request: ExecRequest) -> Result<i32, Error> {
        let id = &request.container_id;
        let (crun_name, folder) = self.containers.crun_name(id)?;
        let folder = folder.join("exec").join(&request.token);
        let outcome = self.exec_in(&crun_name, &folder, &request).await;
        remove_folder(&folder)?;
        let process = outcome?;
        let pid = process.pid;
        match self.containers.lock().get_mut(id) {
            Some(container) => {
                container.processes.insert(request.token, Arc::new(process));
            }
            // The container was removed meanwhile, and the process with it.
            None => return Err(Error::NoContainer(id.clone())),
        }
        Ok(pid)
    }

    async fn exec_in(
        &self,
        crun_name: &str,
        folder: &Path,
        request: &ExecRequest,
    ) -> Result<Process, Error> {
        fs::create_dir_all(folder)?;
        let mut spec = document::process(&request.oci_process)?;
        rlimits::fit(&mut spec);
        let (root, reading) = self.containers.root(&request.container_id)?;
        let mut spec = rootfs::ask(root, reading, move |root| {
            users::complete(&mut spec, root)?;
            Ok(spec)
        })
        .await?;
        sandbox::adapt_process(self.machine.kind, &mut spec);
        fs::write(folder.join("process.json"), serde_json::to_vec(&spec)?)?;
        let launch = Launch {
            container: request.container_id.clone(),
            stdio: request.stdio(),
            is_terminal: spec["terminal"] == json!(true),
            ..Launch::default()
        };
        let call = |console, handles| self.crun.exec(crun_name, folder, console, handles);
        let process = launch.start(&self.reaper, folder, call).await?;
        if let Some(adjustment) = spec["oomScoreAdj"].as_i64() {
            // crun does that for first processes only.
            procfs::adjust_oom_score(process.pid, adjustment)?;
        }
        Ok(process)
    }
}
