//! Waits for all child processes: crun's own processes, the containers' first processes,
//! and orphans.

use std::collections::HashMap;
use std::sync::Arc;

use nix::errno::Errno;
use nix::unistd::Pid;
use parking_lot::{Mutex, MutexGuard};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::oneshot;

use crate::error::Error;

/// How a process ended. `code` is 128 + `signal` when a signal ended it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ended {
    pub code: i32,
    pub signal: i32,
}

#[derive(Default)]
struct Table {
    claims: HashMap<i32, oneshot::Sender<Ended>>,
    /// Children that ended before they were claimed, kept only while an `Expecting` exists.
    early: HashMap<i32, Ended>,
    expecting: usize,
}

#[derive(Clone)]
pub struct Reaper(Arc<Mutex<Table>>);

/// While one of these lives, exits of unknown children are remembered.
pub struct Expecting(Reaper);

impl Reaper {
    pub fn start() -> Result<Self, Error> {
        let reaper = Self(Arc::default());
        let mut children = signal(SignalKind::child())?;
        let this = reaper.clone();
        tokio::spawn(async move {
            while children.recv().await.is_some() {
                this.reap();
            }
        });
        Ok(reaper)
    }

    pub fn expect(&self) -> Expecting {
        self.table().expecting += 1;
        Expecting(self.clone())
    }

    /// Resolves when the child `pid` has ended.
    pub fn claim(&self, pid: i32) -> oneshot::Receiver<Ended> {
        let (sender, receiver) = oneshot::channel();
        let mut table = self.table();
        match table.early.remove(&pid) {
            Some(ended) => {
                let _ = sender.send(ended); // the receiver is below, alive
            }
            None => drop(table.claims.insert(pid, sender)),
        }
        receiver
    }

    fn reap(&self) {
        loop {
            let mut status = 0;
            // SAFETY: writes one number. nix's own fails for a process that a realtime signal has
            // ended.
            let pid = unsafe { libc::waitpid(-1, &raw mut status, libc::WNOHANG) };
            if pid == 0 || (pid < 0 && Errno::last() == Errno::ECHILD) {
                return;
            }
            if pid < 0 {
                continue;
            }
            if libc::WIFEXITED(status) {
                self.settle(
                    Pid::from_raw(pid),
                    Ended { code: libc::WEXITSTATUS(status), signal: 0 },
                );
            } else if libc::WIFSIGNALED(status) {
                let signal = libc::WTERMSIG(status);
                self.settle(Pid::from_raw(pid), Ended { code: 128 + signal, signal });
            }
        }
    }

    fn settle(&self, pid: Pid, ended: Ended) {
        let mut table = self.table();
        if let Some(claim) = table.claims.remove(&pid.as_raw()) {
            let _ = claim.send(ended); // not waited for any more: nothing is lost
        } else if table.expecting > 0 {
            table.early.insert(pid.as_raw(), ended);
        }
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.0.lock()
    }
}

impl Drop for Expecting {
    fn drop(&mut self) {
        let mut table = self.0.table();
        table.expecting -= 1;
        if table.expecting == 0 {
            table.early.clear();
        }
    }
}
