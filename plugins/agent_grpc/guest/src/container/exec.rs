//! One more process in a container.

use std::fs;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tonic::Status;

use crate::Failure;
use crate::container::restart::Again;
use crate::container::rlimits;
use crate::container::rootfs::{self, Root, Turn};
use crate::container::table::{Containers, internal, refusal, remove_folder, unknown};
use crate::container::users;
use crate::machine::sandbox;
use crate::process::child::Process;
use crate::process::procfs;
use crate::proto::ExecRequest;

impl Containers {
    pub async fn exec(&self, request: ExecRequest) -> Result<i32, Status> {
        let id = &request.container_id;
        let (name, folder) = self.known(id)?;
        let folder = folder.join("exec").join(&request.token);
        let outcome = self.exec_in(&name, &folder, &request).await;
        remove_folder(&folder).map_err(internal)?;
        let process = outcome.map_err(|error| refusal(&error, ""))?;
        let pid = process.pid;
        match self.table().get_mut(id) {
            Some(container) => drop(container.processes.insert(request.token, Arc::new(process))),
            None => return Err(unknown(id)), // removed meanwhile, and the process with it
        }
        Ok(pid)
    }

    /// The root of a container as its first process sees it, while that lives, and the turn of who
    /// reads there.
    fn root(&self, id: &str) -> Result<(Root, Turn), Failure> {
        let table = self.table();
        let container = table.get(id).ok_or_else(|| format!("no container {id} in this guest"))?;
        let first = container.processes.get(&container.first).filter(|process| process.is_alive());
        let root = match first {
            Some(process) => Root::of_process(process.pid)?,
            None => Root::Folder(container.rootfs.clone()),
        };
        Ok((root, container.turn.clone()))
    }

    async fn exec_in(
        &self,
        name: &str,
        folder: &Path,
        request: &ExecRequest,
    ) -> Result<Process, Failure> {
        fs::create_dir_all(folder)?;
        let mut spec: Value = serde_json::from_slice(&request.oci_process)?;
        rlimits::fit(&mut spec);
        let (root, turn) = self.root(&request.container_id)?;
        let mut spec = rootfs::ask(root, turn, move |root| {
            users::complete(&mut spec, root)?;
            Ok(spec)
        })
        .await?;
        sandbox::adapt_process(&mut spec);
        fs::write(folder.join("process.json"), serde_json::to_vec(&spec)?)?;
        let is_terminal = spec["terminal"] == json!(true);
        let id = request.container_id.clone();
        let once = Again { id, is_terminal, stdio: request.stdio(), ..Again::default() };
        let process = self
            .launch(folder, &once, |console, handles| async {
                let console = console;
                self.crun.exec(name, folder, console.as_deref(), handles).await
            })
            .await?;
        if let Some(adjustment) = spec["oomScoreAdj"].as_i64() {
            // crun does that for first processes only
            procfs::adjust_oom_score(process.pid, adjustment)?;
        }
        Ok(process)
    }
}
