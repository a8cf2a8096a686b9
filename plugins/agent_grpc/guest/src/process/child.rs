//! One process of a container: its streams while a client is attached, its exit status until the
//! container is removed.

use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::{OwnedMutexGuard, mpsc, oneshot, watch};

use crate::error::Error;
use crate::fd_stream::FdStream;
use crate::machine::clock;
use crate::process::log::Log;
use crate::process::log_pump::LogPump;
use crate::process::procfs::{self, OomKills};
use crate::process::reaper::Ended;
use crate::process::streams::{Output, Slot, Streams, next_chunk};
use crate::proto::output_chunk::Stream;
use crate::proto::{OutputChunk, WaitReply};

/// The parts of a started process.
pub struct Started {
    pub pid: i32,
    pub streams: Streams,
    /// The master side of its terminal.
    pub terminal: Option<OwnedFd>,
    pub end: oneshot::Receiver<Ended>,
    /// Destination of its output; None for the first client that attaches.
    pub log: Option<Log>,
    /// Whether another process follows one that has ended with this exit code.
    pub is_followed: Box<dyn FnOnce(i32) -> bool + Send>,
    pub oom_kills: OomKills,
}

pub struct Process {
    pub pid: i32,
    pub streams: Streams,
    pub terminal: Option<OwnedFd>,
    pub log_pump: Option<LogPump>,
    ended: watch::Receiver<Option<WaitReply>>,
    /// Whether another process follows, once it has ended.
    is_followed: Arc<AtomicBool>,
    /// The signal that was replaced by a kill, 0 for none: see `signal`.
    stands_for: Arc<AtomicI32>,
}

impl Process {
    /// Supervises it until its end.
    pub fn new(started: Started) -> Self {
        let Started { pid, streams, terminal, end, log, is_followed: decide, oom_kills } = started;
        let (sender, ended) = watch::channel(None);
        let stands_for = Arc::new(AtomicI32::new(0));
        let is_followed = Arc::new(AtomicBool::new(false));
        let (meant, decided) = (stands_for.clone(), is_followed.clone());
        tokio::spawn(async move {
            let Ended { mut code, mut signal } = end.await.unwrap_or_default();
            let wanted = meant.load(Ordering::Relaxed);
            if signal == Signal::SIGKILL as i32 && wanted != 0 {
                (code, signal) = (128 + wanted, wanted);
            }
            decided.store(decide(code), Ordering::Relaxed);
            let out_of_memory = code == 128 + Signal::SIGKILL as i32 && oom_kills.has_more();
            let ended_ns = clock::now_ns().unwrap_or_default();
            let signal = signal.unsigned_abs();
            let reply = WaitReply { exit_code: code, signal, ended_ns, out_of_memory };
            sender.send_replace(Some(reply));
        });
        let log_pump = log.map(|log| {
            let outputs = [&streams.stdout, &streams.stderr];
            let taken =
                outputs.map(|slot| slot.try_lock().ok().and_then(|mut stream| stream.take()));
            LogPump::begin(log, taken, ended.clone(), is_followed.clone())
        });
        Self { pid, streams, terminal, log_pump, ended, is_followed, stands_for }
    }

    /// Sends a signal.
    ///
    /// The kernel drops signals that the first process of a pid namespace neither catches nor
    /// ignores, so a `sleep` would be impossible to interrupt. A signal that would end any other
    /// process is replaced by a kill here, and reported as the end by that signal.
    pub fn signal(&self, number: i32) -> Result<(), Errno> {
        let sent = if ends(number)
            && procfs::is_namespace_init(self.pid)
            && !procfs::minds(self.pid, number)
        {
            self.stands_for.store(number, Ordering::Relaxed);
            libc::SIGKILL
        } else {
            number
        };
        // SAFETY: takes numbers. nix's own knows no realtime signals.
        Errno::result(unsafe { libc::kill(self.pid, sent) }).map(drop)
    }

    pub fn is_followed(&self) -> bool {
        self.is_followed.load(Ordering::Relaxed)
    }

    pub fn kill(&self) {
        if self.is_alive() {
            // It has just ended, which is the purpose.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    pub fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    pub fn ended(&self) -> watch::Receiver<Option<WaitReply>> {
        self.ended.clone()
    }

    /// Sends stdout and stderr until the process has ended and its pipes are empty, or the receiver
    /// is closed.
    pub fn attach(&self, sender: &mpsc::Sender<Output>) -> Result<(), Error> {
        if let Some(log_pump) = &self.log_pump {
            return log_pump.attach(sender);
        }
        let wraps: [fn(Vec<u8>) -> Stream; 2] = [Stream::Stdout, Stream::Stderr];
        for (slot, wrap) in [&self.streams.stdout, &self.streams.stderr].into_iter().zip(wraps) {
            let taken = |_| Error::StreamTaken("is attached to");
            let stream = slot.clone().try_lock_owned().map_err(taken)?;
            tokio::spawn(forward(stream, self.ended(), sender.clone(), wrap));
        }
        Ok(())
    }

    /// Reads stdout and stderr to their end for nobody, so that the process does not wait.
    pub fn discard_output(&self) {
        for slot in [&self.streams.stdout, &self.streams.stderr] {
            tokio::spawn(discard(slot.clone(), self.ended()));
        }
    }
}

async fn discard(slot: Slot, mut ended: watch::Receiver<Option<WaitReply>>) {
    let mut stream = slot.lock_owned().await;
    while let Some(open) = stream.as_mut() {
        if next_chunk(open, &mut ended).await.is_none() {
            *stream = None;
        }
    }
}

async fn forward(
    mut slot: OwnedMutexGuard<Option<FdStream>>,
    mut ended: watch::Receiver<Option<WaitReply>>,
    sender: mpsc::Sender<Output>,
    wrap: fn(Vec<u8>) -> Stream,
) {
    let Some(stream) = slot.as_mut() else { return };
    loop {
        let data = tokio::select! {
            biased;
            data = next_chunk(stream, &mut ended) => data,
            () = sender.closed() => return,
        };
        let Some(data) = data else { break };
        if sender.send(Ok(OutputChunk { stream: Some(wrap(data)) })).await.is_err() {
            return;
        }
    }
    *slot = None;
}

/// Returns whether a signal's default action ends a process: signal(7).
fn ends(number: i32) -> bool {
    let others = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    !others.contains(&number) && !stops.contains(&number)
}
