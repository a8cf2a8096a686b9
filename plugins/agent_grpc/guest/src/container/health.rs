//! The health of a container, as its checks determine it.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use tokio::time::Instant;

use crate::proto::{self, HealthCheck};

pub struct Health {
    pub check: HealthCheck,
    is_healthy: AtomicBool,
    failures: AtomicU32,
    began: Instant,
}

impl Health {
    pub fn new(check: HealthCheck) -> Self {
        let (is_healthy, failures) = (AtomicBool::new(false), AtomicU32::new(0));
        Self { check, is_healthy, failures, began: Instant::now() }
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

    /// Records the result of a check.
    pub fn note(&self, is_good: bool) {
        if is_good {
            self.is_healthy.store(true, Ordering::Relaxed);
            self.failures.store(0, Ordering::Relaxed);
        } else if self.is_healthy.load(Ordering::Relaxed) || !self.is_starting() {
            self.failures.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn is_starting(&self) -> bool {
        self.began.elapsed() < Duration::from_millis(self.check.start_period_ms)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn health(retries: u32, start_period_ms: u64) -> Health {
        Health::new(HealthCheck { retries, start_period_ms, ..HealthCheck::default() })
    }

    #[test]
    fn failures_one_after_the_other_make_it_unhealthy() {
        let health = health(2, 0);
        assert_eq!(health.state(), proto::Health::Starting);
        health.note(true);
        health.note(false);
        assert_eq!(health.state(), proto::Health::Healthy);
        health.note(true);
        health.note(false);
        health.note(false);
        assert_eq!(health.state(), proto::Health::Unhealthy);
        health.note(true);
        assert_eq!(health.state(), proto::Health::Healthy);
    }

    #[test]
    fn failures_do_not_count_until_a_first_success_or_the_start_period_is_over() {
        let health = health(1, u64::MAX);
        health.note(false);
        assert_eq!(health.state(), proto::Health::Starting);
        health.note(true);
        health.note(false);
        assert_eq!(health.state(), proto::Health::Unhealthy);
    }
}
