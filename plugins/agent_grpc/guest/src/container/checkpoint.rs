//! Prepares the guest for a checkpoint, and resumes afterwards.

use crate::container::agent::Agent;
use crate::container::crun::Verb;
use crate::error::Error;

impl Agent {
    /// Closes the shares and logs of the host. Containers that use them wait until `unquiesce`.
    pub async fn quiesce(&self) -> Result<(), Error> {
        self.warm_up().await?;
        self.mounts.shares.let_go()?;
        self.log_gate.close().await;
        Ok(())
    }

    /// May be called twice.
    pub fn unquiesce(&self) -> Result<(), Error> {
        self.log_gate.open();
        self.mounts.shares.take()
    }

    /// Loads what every container needs, so that clones of this machine need not. Does nothing if
    /// there are containers.
    async fn warm_up(&self) -> Result<(), Error> {
        if !self.containers.lock().is_empty() {
            return Ok(());
        }
        for purpose in ["9p", "fuse", "overlay"] {
            self.machine.modules.load(purpose)?;
        }
        self.crun.warm_up().await?;
        for verb in [Verb::Run, Verb::Create] {
            self.warm_cruns.prepare(&self.crun, verb).await?;
        }
        Ok(())
    }
}
