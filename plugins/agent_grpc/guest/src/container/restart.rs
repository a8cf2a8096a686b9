//! Decides whether a container is restarted when its first process has ended.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::watch;

use crate::proto::{RestartPolicy, WaitReply};

pub struct Restart {
    policy: RestartPolicy,
    /// 0 means no limit.
    max_retries: u32,
    count: AtomicU32,
    is_unwanted: watch::Sender<bool>,
    end: watch::Sender<Option<WaitReply>>,
}

impl Restart {
    pub fn new(policy: RestartPolicy, max_retries: u32) -> Self {
        let (is_unwanted, end) = (watch::Sender::new(false), watch::Sender::new(None));
        Self { policy, max_retries, count: AtomicU32::new(0), is_unwanted, end }
    }

    /// Returns whether a process that ended with this exit code is followed by another.
    pub fn follows(&self, exit_code: i32) -> bool {
        let is_meant = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Always => true,
        };
        let has_tries = self.max_retries == 0 || self.count() < self.max_retries;
        is_meant && has_tries && !self.is_unwanted()
    }

    /// Records that the container is to end: no other process follows.
    pub fn stop(&self) {
        self.is_unwanted.send_replace(true);
    }

    pub fn is_unwanted(&self) -> bool {
        *self.is_unwanted.borrow()
    }

    /// Returns when somebody wants it to end.
    pub async fn stopped(&self) {
        // The sender lives as long as `self`.
        let _ = self.is_unwanted.subscribe().wait_for(|is_unwanted| *is_unwanted).await;
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    pub fn note_start(&self) {
        self.count.fetch_add(1, Ordering::Relaxed);
    }

    /// Returns how the last process ended, after which none follows.
    pub fn end(&self) -> watch::Receiver<Option<WaitReply>> {
        self.end.subscribe()
    }

    /// Records that no process follows.
    pub fn finish(&self, status: WaitReply) {
        self.end.send_replace(Some(status));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_decides_by_the_exit_code() {
        let policies = [
            (RestartPolicy::No, [false, false]),
            (RestartPolicy::OnFailure, [false, true]),
            (RestartPolicy::Always, [true, true]),
        ];
        for (policy, expected) in policies {
            let restart = Restart::new(policy, 0);
            assert_eq!([0, 1].map(|code| restart.follows(code)), expected, "{policy:?}");
        }
    }

    #[test]
    fn tries_run_out() {
        let restart = Restart::new(RestartPolicy::Always, 2);
        restart.note_start();
        assert!(restart.follows(0));
        restart.note_start();
        assert!(!restart.follows(0));
    }

    #[test]
    fn what_was_stopped_is_not_started_again() {
        let restart = Restart::new(RestartPolicy::Always, 0);
        restart.stop();
        assert!(!restart.follows(1));
    }
}
