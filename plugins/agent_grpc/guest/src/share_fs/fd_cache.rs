//! Keeps files open briefly, so that further requests for them need no path lookup.
//!
//! Only briefly: while the guest's kernel has a file of a share open, it does not ask the host
//! which file has its name now.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

const MOMENT: Duration = Duration::from_secs(1);
/// Limit for all shares together: a process may have 1024 files open.
const MOST: usize = 512;

/// The number of files that all caches hold together.
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

    /// Returns the budget, to be shared with another cache.
    pub fn budget(&self) -> Budget {
        self.budget.clone()
    }

    pub fn get(&mut self, number: u64) -> Option<Arc<OwnedFd>> {
        self.drop_old(number);
        self.entries.get(&number).map(|(point, _)| point.clone())
    }

    /// Keeps a file, if there is room; returns it.
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

#[cfg(test)]
mod tests {
    use std::fs::File;

    use super::*;

    fn file() -> OwnedFd {
        File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn caches_share_their_budget_and_give_it_back() {
        let budget = Budget::default();
        let count = || budget.0.load(Ordering::Relaxed);
        let (mut one, mut other) = (FdCache::new(budget.clone()), FdCache::new(budget.clone()));
        for number in 0..2 {
            one.put(number, file());
            other.put(number, file());
        }
        one.put(0, file());
        assert_eq!(count(), 4);
        one.drop(0);
        one.drop(0);
        assert_eq!(count(), 3);
        other.clear();
        assert_eq!(count(), 1);
        drop(one);
        assert_eq!(count(), 0);
    }

    #[test]
    fn a_full_cache_begins_anew_and_one_that_cannot_holds_nothing() {
        let budget = Budget::default();
        budget.0.store(MOST - 1, Ordering::Relaxed);
        let mut cache = FdCache::new(budget.clone());
        cache.put(1, file());
        cache.put(2, file());
        assert!(cache.get(1).is_none() && cache.get(2).is_some());
        let mut other = FdCache::new(budget);
        other.put(3, file());
        assert!(other.get(3).is_none());
    }
}
