//! One process of a container: its streams while somebody is attached, its end until the container
//! is removed.

use std::io;
use std::io::IoSliceMut;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use nix::errno::Errno;
use nix::sys::signal::{Signal, kill};
use nix::sys::socket::{ControlMessageOwned, MsgFlags, recvmsg};
use nix::unistd::Pid;
use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, mpsc, oneshot, watch};
use tonic::Status;

use crate::Failure;
use crate::container::crun::Handles;
use crate::container::supervise::Restart;
use crate::fd_stream::FdStream;
use crate::process::log::Log;
use crate::process::log_pump::Logged;
use crate::process::procfs::{self, OomKills};
use crate::process::reaper::Ended;
use crate::proto::output_chunk::Stream;
use crate::proto::{OutputChunk, WaitReply};

const CHUNK_BYTES: usize = 64 << 10;

pub type Output = Result<OutputChunk, Status>;

/// Our ends of a process's standard streams. With a terminal, `stdin` and `stdout` are two handles
/// of it.
#[derive(Default)]
pub struct Streams {
    pub stdin: Arc<Mutex<Option<FdStream>>>,
    pub stdout: Arc<Mutex<Option<FdStream>>>,
    pub stderr: Arc<Mutex<Option<FdStream>>>,
}

pub struct Process {
    pub pid: i32,
    pub streams: Streams,
    pub terminal: Option<OwnedFd>,
    /// Where its output goes, if not to whoever attaches first.
    pub logged: Option<Logged>,
    ended: watch::Receiver<Option<WaitReply>>,
    /// Whether another process follows it, once it has ended.
    is_followed: Arc<AtomicBool>,
    /// The signal that a kill stands for, 0 for none: see `signal`.
    stands_for: Arc<AtomicI32>,
}

impl Process {
    pub fn new(
        pid: i32,
        streams: Streams,
        terminal: Option<OwnedFd>,
        claim: oneshot::Receiver<Ended>,
        log: Option<Log>,
        restart: Option<Arc<Restart>>,
        killed: OomKills,
    ) -> Self {
        let (sender, ended) = watch::channel(None);
        let stands_for = Arc::new(AtomicI32::new(0));
        let meant = stands_for.clone();
        let is_followed = Arc::new(AtomicBool::new(false));
        let (decided, known) = (is_followed.clone(), is_followed.clone());
        tokio::spawn(async move {
            let Ended { mut code, mut signal } = claim.await.unwrap_or_default();
            let wanted = meant.load(Ordering::Relaxed);
            if signal == Signal::SIGKILL as i32 && wanted != 0 {
                (code, signal) = (128 + wanted, wanted);
            }
            decided.store(restart.is_some_and(|restart| restart.follows(code)), Ordering::Relaxed);
            let out_of_memory = code == 128 + Signal::SIGKILL as i32 && killed.has_more();
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let ended_ns = i64::try_from(now.as_nanos()).unwrap_or(i64::MAX);
            let signal = signal.unsigned_abs();
            sender.send_replace(Some(WaitReply {
                exit_code: code,
                signal,
                ended_ns,
                out_of_memory,
            }));
        });
        let logged = log.map(|log| {
            let taken = [&streams.stdout, &streams.stderr]
                .map(|held| held.try_lock().ok().and_then(|mut one| one.take()));
            let [stdout, stderr] = taken;
            Logged::begin(log, stdout, stderr, ended.clone(), known)
        });
        Self { pid, streams, terminal, logged, ended, is_followed, stands_for }
    }

    /// Sends a signal.
    ///
    /// The kernel drops what the first process of a pid namespace neither catches nor ignores, so a
    /// `sleep` could be interrupted by nobody. Such a signal, where it would end any other process,
    /// ends this one by a kill in its name.
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
            // it has ended just now: that is what is wanted
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }

    pub fn is_alive(&self) -> bool {
        self.ended.borrow().is_none()
    }

    pub fn ended(&self) -> watch::Receiver<Option<WaitReply>> {
        self.ended.clone()
    }

    /// Sends stdout and stderr until the process has ended and its pipes are empty, or nobody
    /// receives.
    pub fn attach(&self, sender: &mpsc::Sender<Output>) -> Result<(), Status> {
        if let Some(logged) = &self.logged {
            return logged.attach(sender);
        }
        let wraps: [fn(Vec<u8>) -> Stream; 2] = [Stream::Stdout, Stream::Stderr];
        for (stream, wrap) in [&self.streams.stdout, &self.streams.stderr].into_iter().zip(wraps) {
            let held = stream.clone().try_lock_owned().map_err(|_| {
                Status::failed_precondition("another client is attached to this process")
            })?;
            tokio::spawn(forward(held, self.ended(), sender.clone(), wrap));
        }
        Ok(())
    }
}

async fn forward(
    mut held: tokio::sync::OwnedMutexGuard<Option<FdStream>>,
    mut ended: watch::Receiver<Option<WaitReply>>,
    sender: mpsc::Sender<Output>,
    wrap: fn(Vec<u8>) -> Stream,
) {
    let Some(stream) = held.as_mut() else { return };
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
    *held = None;
}

/// What a process has written; `None` when it has ended and nothing is left. May be cancelled:
/// nothing is lost.
pub async fn next_chunk(
    stream: &mut FdStream,
    ended: &mut watch::Receiver<Option<WaitReply>>,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let count = tokio::select! {
        biased;
        outcome = stream.read(&mut buffer) => outcome.unwrap_or(0),
        // A child that outlives the process may hold the pipe open for ever: what is in it now is
        // all that counts.
        _ = ended.wait_for(Option::is_some) => stream.read_now(&mut buffer).ok().flatten().unwrap_or(0),
    };
    buffer.truncate(count);
    (count > 0).then_some(buffer)
}

/// Three pipes: crun's ends and ours.
pub fn pipes() -> Result<(Handles, Streams), Failure> {
    let (stdin, stdin_ours) = io::pipe()?;
    let (stdout_ours, stdout) = io::pipe()?;
    let (stderr_ours, stderr) = io::pipe()?;
    let handles = Handles {
        stdin: Stdio::from(stdin),
        stdout: Stdio::from(stdout),
        stderr: Stdio::from(stderr),
    };
    let streams = Streams {
        stdin: held(stdin_ours.into())?,
        stdout: held(stdout_ours.into())?,
        stderr: held(stderr_ours.into())?,
    };
    Ok((handles, streams))
}

/// Pipes for output alone: there is no input.
pub fn output_pipes() -> Result<(Handles, Streams), Failure> {
    let (handles, streams) = pipes()?;
    Ok((Handles { stdin: Stdio::null(), ..handles }, Streams { stdin: Arc::default(), ..streams }))
}

/// The streams of a terminal, and the handle that knows its size.
pub fn terminal_streams(master: OwnedFd) -> Result<(Streams, OwnedFd), Failure> {
    let streams = Streams {
        stdin: held(master.try_clone()?)?,
        stdout: held(master.try_clone()?)?,
        ..Streams::default()
    };
    Ok((streams, master))
}

fn held(fd: OwnedFd) -> io::Result<Arc<Mutex<Option<FdStream>>>> {
    Ok(Arc::new(Mutex::new(Some(FdStream::new(fd)?))))
}

/// The socket through which crun hands over a terminal's master side.
pub struct ConsoleSocket {
    listener: UnixListener,
    pub path: PathBuf,
}

impl ConsoleSocket {
    pub fn bind(folder: &Path) -> io::Result<Self> {
        let path = folder.join("console.sock");
        Ok(Self { listener: UnixListener::bind(&path)?, path })
    }

    /// To be called after crun has ended well: it has sent by then, so nothing here waits.
    pub fn receive(self) -> Result<OwnedFd, Failure> {
        let (peer, _) = self.listener.accept()?;
        let mut name = [0; 256];
        let mut slices = [IoSliceMut::new(&mut name)];
        let mut space = nix::cmsg_space!([libc::c_int; 1]);
        let message = recvmsg::<()>(
            peer.as_raw_fd(),
            &mut slices,
            Some(&mut space),
            MsgFlags::MSG_CMSG_CLOEXEC,
        )?;
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(fds) = control
                && let Some(&fd) = fds.first()
            {
                // SAFETY: the kernel has just made this descriptor for us and nobody else knows it.
                return Ok(unsafe { OwnedFd::from_raw_fd(fd) });
            }
        }
        Err("crun sent no terminal".into())
    }
}

/// Whether a signal ends a process that does not mind it: signal(7).
fn ends(number: i32) -> bool {
    let others = [libc::SIGCHLD, libc::SIGCONT, libc::SIGURG, libc::SIGWINCH];
    let stops = [libc::SIGSTOP, libc::SIGTSTP, libc::SIGTTIN, libc::SIGTTOU];
    !others.contains(&number) && !stops.contains(&number)
}
