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

static COUNT: AtomicUsize = AtomicUsize::new(0);

#[derive(Default)]
pub struct Held(HashMap<u64, (Arc<OwnedFd>, Instant)>);

impl Held {
    pub fn get(&mut self, number: u64) -> Option<Arc<OwnedFd>> {
        self.drop_old(number);
        self.0.get(&number).map(|(point, _)| point.clone())
    }

    /// Holds it, where there is room; gives it back.
    pub fn put(&mut self, number: u64, point: OwnedFd) -> Arc<OwnedFd> {
        let point = Arc::new(point);
        if COUNT.load(Ordering::Relaxed) >= MOST {
            self.clear();
        }
        if COUNT.load(Ordering::Relaxed) < MOST
            && self.0.insert(number, (point.clone(), Instant::now())).is_none()
        {
            COUNT.fetch_add(1, Ordering::Relaxed);
        }
        point
    }

    pub fn drop(&mut self, number: u64) {
        if self.0.remove(&number).is_some() {
            COUNT.fetch_sub(1, Ordering::Relaxed);
        }
    }

    pub fn drop_old(&mut self, number: u64) {
        if self.0.get(&number).is_some_and(|(_, since)| since.elapsed() > MOMENT) {
            self.drop(number);
        }
    }

    fn clear(&mut self) {
        COUNT.fetch_sub(self.0.len(), Ordering::Relaxed);
        self.0.clear();
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.clear();
    }
}
