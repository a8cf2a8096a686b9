//! Whether a container is started again when its first process has ended, and how it fares
//! meanwhile.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use crate::container::table::Containers;
use crate::proto::{self, HealthCheck, RestartPolicy, WaitReply};

/// The pause before a new start doubles with each, up to a limit, until one has lasted.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
const LASTING: Duration = Duration::from_secs(10);

pub struct Restart {
    policy: RestartPolicy,
    /// 0 is no limit.
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

    /// Whether a process that has ended like this is followed by another.
    pub fn follows(&self, exit_code: i32) -> bool {
        let is_meant = match self.policy {
            RestartPolicy::No => false,
            RestartPolicy::OnFailure => exit_code != 0,
            RestartPolicy::Always => true,
        };
        let has_tries =
            self.max_retries == 0 || self.count.load(Ordering::Relaxed) < self.max_retries;
        is_meant && has_tries && !self.is_unwanted()
    }

    /// Somebody wants it to end: no other follows.
    pub fn stop(&self) {
        self.is_unwanted.send_replace(true);
    }

    pub fn is_unwanted(&self) -> bool {
        *self.is_unwanted.borrow()
    }

    pub fn count(&self) -> u32 {
        self.count.load(Ordering::Relaxed)
    }

    /// How the last process ended, after which none follows.
    pub fn end(&self) -> watch::Receiver<Option<WaitReply>> {
        self.end.subscribe()
    }
}

/// Starts a container again for as long as its policy wants that. Ends when no process follows.
pub async fn supervise(containers: &Containers, id: &str, restart: &Restart) {
    let (mut pause, mut unwanted) = (FIRST_PAUSE, restart.is_unwanted.subscribe());
    loop {
        let Some(process) = containers.first_process(id) else { return }; // removed
        let began = Instant::now();
        let status = process.ended().wait_for(Option::is_some).await.ok().and_then(|found| *found);
        let status = status.unwrap_or_default();
        if let Some(logged) = &process.logged {
            logged.done().await;
        }
        if process.is_followed() {
            if began.elapsed() >= LASTING {
                pause = FIRST_PAUSE;
            }
            tokio::select! {
                () = sleep(pause) => (),
                _ = unwanted.wait_for(|is_unwanted| *is_unwanted) => (),
            }
            pause = LONGEST_PAUSE.min(pause * 2);
            if !restart.is_unwanted() {
                restart.count.fetch_add(1, Ordering::Relaxed);
                match containers.run_again(id).await {
                    Ok(()) => continue,
                    Err(error) => {
                        eprintln!("vc-agent: container {id} cannot be started again: {error}")
                    }
                }
            }
            containers.log_last(id, status.exit_code).await;
        }
        restart.end.send_replace(Some(status));
        return;
    }
}

pub struct Health {
    pub check: HealthCheck,
    is_healthy: AtomicBool,
    failures: AtomicU32,
    began: Instant,
}

impl Health {
    pub fn new(check: HealthCheck) -> Self {
        Self {
            check,
            is_healthy: AtomicBool::new(false),
            failures: AtomicU32::new(0),
            began: Instant::now(),
        }
    }

    pub fn state(&self) -> proto::Health {
        if self.failures.load(Ordering::Relaxed) >= self.check.retries.max(1) {
            proto::Health::Unhealthy
        } else if self.is_healthy.load(Ordering::Relaxed) {
            proto::Health::Healthy
        } else {
            proto::Health::Starting
        }
    }

    fn note(&self, is_good: bool) {
        if is_good {
            self.is_healthy.store(true, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        } else if self.is_healthy.load(Ordering::Relaxed)
            || self.began.elapsed() >= self.start_period()
        {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn start_period(&self) -> Duration {
        Duration::from_millis(self.check.start_period_ms)
    }
}

/// Runs the check again and again, until the container is gone.
pub async fn look_after(containers: &Containers, id: &str, health: &Health) {
    let interval = Duration::from_millis(health.check.interval_ms.max(1));
    let limit = Duration::from_millis(health.check.timeout_ms.max(1));
    let mut number = 0_u64;
    loop {
        sleep(interval).await;
        number += 1;
        let token = format!("_health{number}");
        if !containers.is_checked_by(id, health) {
            return; // removed; another one may have its name
        }
        let is_good = match containers.run_check(id, &token, &health.check).await {
            Err(_) => false, // it cannot be executed: between two starts, or at all
            Ok(process) => {
                let mut ended = process.ended();
                let within = timeout(limit, ended.wait_for(Option::is_some)).await;
                if within.is_err() {
                    process.kill();
                }
                let status = within.ok().and_then(Result::ok).and_then(|found| *found);
                status.is_some_and(|status| status.exit_code == 0)
            }
        };
        containers.forget_check(id, &token);
        health.note(is_good);
    }
}
