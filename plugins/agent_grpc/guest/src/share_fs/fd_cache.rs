//! Files that are held for a moment, so that nobody has to go there again for the next question
//! about them.
//!
//! Not for long: while the guest's kernel has a file of a share in hand, it does not ask the host
//! what has its name now.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_secs(1);
/// Of all shares together: a process may have 1024 files open.
const MOST: usize = 512;

/// How many files all caches hold together.
#[derive(Clone, Default)]
pub struct Budget(Arc<AtomicUsize>);

pub struct FdCache {
    budget: Budget,
    entries: HashMap<u64, (Arc<OwnedFd>, Instant)>,
}

impl FdCache {
    pub fn new(budget: Budget) -> Self {
        Self { budget, entries: HashMap::new() }
    }

    /// To be shared with another cache.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    pub fn get(&mut self, number: u64) -> Option<Arc<OwnedFd>> {
        self.drop_old(number);
        self.entries.get(&number).map(|(point, _)| point.clone())
    }

    /// Holds it, where there is room; gives it back.
    pub fn put(&mut self, number: u64, point: OwnedFd) -> Arc<OwnedFd> {
        let point = Arc::new(point);
        if self.budget.0.load(Ordering::Relaxed) >= MOST {
            self.clear();
        }
        if self.budget.0.load(Ordering::Relaxed) < MOST
            && self.entries.insert(number, (point.clone(), Instant::now())).is_none()
        {
            self.budget.0.fetch_add(1, Ordering::Relaxed);
        }
        point
    }

    pub fn drop(&mut self, number: u64) {
        if self.entries.remove(&number).is_some() {
            self.budget.0.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn drop_old(&mut self, number: u64) {
        if self.entries.get(&number).is_some_and(|(_, since)| since.elapsed() > MOMENT) {
            self.drop(number);
        }
    }

    pub fn clear(&mut self) {
        self.budget.0.fetch_sub(self.entries.len(), Ordering::Relaxed);
        self.entries.clear();
    }
}

impl Drop for FdCache {
    fn drop(&mut self) {
        self.clear();
    }
}
