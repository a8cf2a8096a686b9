//! Whether a client that is gone has ended, or is the client of another machine.
//!
//! A machine that starts from a saved one has lost all clients of that one at once. First processes
//! of containers go on there; in the saved one they end with the client that holds them.

use std::time::Duration;

use tokio::sync::watch;

/// For a machine that was prepared for a checkpoint by a client that is gone since: a machine that
/// starts from the checkpoint gets an identity within this time.
const UNDECIDED: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Default)]
struct Lineage {
    /// How often the machine was started from a saved one.
    starts: u64,
    /// Counts the preparations for a checkpoint.
    checkpoints: u64,
    /// Whether the machine is prepared for a checkpoint, and not known to be the same.
    is_open: bool,
}

#[derive(Default)]
pub struct Holds(watch::Sender<Lineage>);

/// The machine in which a client began to hold a process.
pub struct Held {
    began: u64,
    lineage: watch::Receiver<Lineage>,
}

impl Holds {
    pub fn begin(&self) -> Held {
        let lineage = self.0.subscribe();
        let began = lineage.borrow().starts;
        Held { began, lineage }
    }

    /// The machine is prepared for a checkpoint; returns which one that is.
    pub fn open(&self) -> u64 {
        self.0.send_modify(|now| {
            now.checkpoints += 1;
            now.is_open = true;
        });
        self.0.borrow().checkpoints
    }

    /// The machine goes on after its checkpoint.
    pub fn is_same(&self) {
        self.0.send_modify(|now| now.is_open = false);
    }

    /// The machine has got an identity: it is another one, if it was prepared for a checkpoint.
    pub fn is_another(&self) {
        self.0.send_modify(|now| {
            now.starts += u64::from(now.is_open);
            now.is_open = false;
        });
    }

    /// The client that prepared a checkpoint is gone, and may never say more.
    pub async fn decide_later(&self, checkpoint: u64) {
        tokio::time::sleep(UNDECIDED).await;
        self.0.send_if_modified(|now| {
            let is_undecided = now.is_open && now.checkpoints == checkpoint;
            now.is_open &= !is_undecided;
            is_undecided
        });
    }
}

impl Held {
    /// Returns whether the client is that of another machine, as soon as that is known.
    pub async fn is_of_another_machine(mut self) -> bool {
        let decided = self.lineage.wait_for(|now| !now.is_open).await;
        decided.is_ok_and(|now| now.starts != self.began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_client_is_of_another_machine_after_a_start_from_a_checkpoint() {
        let holds = Holds::default();
        let held = holds.begin();
        holds.open();
        holds.is_another();
        assert!(held.is_of_another_machine().await);
        assert!(!holds.begin().is_of_another_machine().await);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_ends_during_a_checkpoint_waits_for_the_decision() {
        let holds = Holds::default();
        let held = holds.begin();
        holds.open();
        let mut waiting = Box::pin(held.is_of_another_machine());
        assert!(futures_are_pending(waiting.as_mut()).await);
        holds.is_same();
        assert!(!waiting.await);
    }

    #[tokio::test(start_paused = true)]
    async fn without_an_answer_it_is_the_same_machine_after_a_while() {
        let holds = Holds::default();
        let held = holds.begin();
        let first = holds.open();
        holds.decide_later(first).await;
        assert!(!held.is_of_another_machine().await);
        let held = holds.begin();
        holds.open();
        holds.decide_later(first).await; // of an earlier one
        holds.is_another();
        assert!(held.is_of_another_machine().await);
    }

    #[tokio::test(start_paused = true)]
    async fn the_identity_of_a_machine_that_boots_changes_nothing() {
        let holds = Holds::default();
        let held = holds.begin();
        holds.is_another();
        assert!(!held.is_of_another_machine().await);
    }

    async fn futures_are_pending(future: std::pin::Pin<&mut impl Future<Output = bool>>) -> bool {
        tokio::time::timeout(Duration::from_secs(1), future).await.is_err()
    }
}
