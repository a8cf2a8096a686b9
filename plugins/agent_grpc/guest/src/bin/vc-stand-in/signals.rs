//! Signals for the process in the guest, changes of the terminal's size, and ended children.

use nix::sys::signal::{SigSet, SigmaskHow, Signal, sigprocmask};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use tokio::io::unix::AsyncFd;
use vc_agent::proto::{ProcessRequest, ResizeRequest, SignalRequest};

use crate::agent::Client;

/// All signals, which are blocked and read from a descriptor.
pub struct Signals(SignalFd);

impl Signals {
    /// Blocks them for this thread and those it starts.
    pub fn block() -> nix::Result<Self> {
        let all = SigSet::all();
        sigprocmask(SigmaskHow::SIG_SETMASK, Some(&all), None)?;
        // A parent may have set some to be ignored, which drops them in spite of the mask.
        for number in 1..=libc::SIGRTMAX() {
            // SAFETY: takes numbers. SIGKILL and SIGSTOP are refused, as others that do not exist.
            unsafe { libc::signal(number, libc::SIG_DFL) };
        }
        Ok(Self(SignalFd::with_flags(&all, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?))
    }
}

/// Forwards signals in the background, in their order.
pub fn forward(signals: Signals, mut client: Client, process: ProcessRequest) {
    tokio::spawn(async move {
        reap(); // children of the program that this one has replaced
        if resize(&mut client, &process).await.is_err() {
            return;
        }
        // SAFETY: the AsyncFd owns the descriptor, which is open until it is dropped.
        let Ok(signals) = (unsafe { AsyncFd::register(signals.0) }) else { return };
        while let Ok(mut guard) = signals.readable().await {
            match signals.get_ref().read_signal() {
                Ok(Some(info)) => {
                    if handle(&mut client, &process, &info).await.is_err() {
                        return;
                    }
                }
                Ok(None) => guard.clear_ready(),
                Err(_) => return,
            }
        }
    });
}

/// Fails when the connection is gone, which the reader of the output reports.
async fn handle(
    client: &mut Client,
    process: &ProcessRequest,
    info: &libc::signalfd_siginfo,
) -> Result<(), tonic::Status> {
    let number = info.ssi_signo as i32;
    let is_sent = info.ssi_code <= 0 && info.ssi_pid != std::process::id();
    if number == Signal::SIGCHLD as i32 {
        reap();
    }
    if number == Signal::SIGWINCH as i32 {
        resize(client, process).await?;
    }
    // The kernel's own: of children, of the terminal's size, of a pipe that nobody reads. A
    // terminal that has hung up is meant for the process.
    if !is_sent && number != Signal::SIGHUP as i32 {
        return Ok(());
    }
    let ProcessRequest { container_id, token } = process.clone();
    let request = SignalRequest { container_id, token, signal: info.ssi_signo };
    gone(client.signal(request).await.err())
}

/// Gives the terminal of the process the size of ours, if there is one.
async fn resize(client: &mut Client, process: &ProcessRequest) -> Result<(), tonic::Status> {
    let mut size = libc::winsize { ws_row: 0, ws_col: 0, ws_xpixel: 0, ws_ypixel: 0 };
    // SAFETY: the structure is the one that this request fills.
    let is_terminal = unsafe { libc::ioctl(0, libc::TIOCGWINSZ, &raw mut size) } == 0;
    if !is_terminal || size.ws_row == 0 || size.ws_col == 0 {
        return Ok(());
    }
    let ProcessRequest { container_id, token } = process.clone();
    let (rows, columns) = (size.ws_row.into(), size.ws_col.into());
    let request = ResizeRequest { container_id, token, rows, columns };
    gone(client.resize(request).await.err())
}

/// A refusal by the agent (the process has just ended) is no error; a lost connection is one.
fn gone(error: Option<tonic::Status>) -> Result<(), tonic::Status> {
    match error {
        Some(status) if status.code() == tonic::Code::Unavailable => Err(status),
        _ => Ok(()),
    }
}

fn reap() {
    while let Ok(status) = waitpid(None, Some(WaitPidFlag::WNOHANG)) {
        if status == WaitStatus::StillAlive {
            return;
        }
    }
}
