//! The standard streams of a process: its ends and the agent's.

use std::io;
use std::os::fd::OwnedFd;
use std::process::Stdio;
use std::sync::Arc;

use tokio::io::AsyncReadExt;
use tokio::sync::{Mutex, watch};
use tonic::Status;

use crate::error::Error;
use crate::fd_stream::FdStream;
use crate::proto::{OutputChunk, WaitReply};

const CHUNK_BYTES: usize = 64 << 10;

/// A message to a client that reads the output of a process.
pub type Output = Result<OutputChunk, Status>;

/// A stream, until it is closed; locked by the client that uses it.
pub type Slot = Arc<Mutex<Option<FdStream>>>;

/// The descriptors that a started process inherits.
pub struct Handles {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl Handles {
    pub fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

/// The agent's ends of a process's standard streams. With a terminal, `stdin` and `stdout` are two
/// handles of it.
#[derive(Default)]
pub struct Streams {
    pub stdin: Slot,
    pub stdout: Slot,
    pub stderr: Slot,
}

/// Three pipes.
pub fn pipes() -> Result<(Handles, Streams), Error> {
    let (stdin, stdin_ours) = io::pipe()?;
    let (stdout_ours, stdout) = io::pipe()?;
    let (stderr_ours, stderr) = io::pipe()?;
    let handles = Handles {
        stdin: Stdio::from(stdin),
        stdout: Stdio::from(stdout),
        stderr: Stdio::from(stderr),
    };
    let streams = Streams {
        stdin: slot(stdin_ours.into())?,
        stdout: slot(stdout_ours.into())?,
        stderr: slot(stderr_ours.into())?,
    };
    Ok((handles, streams))
}

/// Pipes for output alone: there is no input.
pub fn output_pipes() -> Result<(Handles, Streams), Error> {
    let (handles, streams) = pipes()?;
    let streams = Streams { stdin: Slot::default(), ..streams };
    Ok((Handles { stdin: Stdio::null(), ..handles }, streams))
}

/// Returns the streams of a terminal, given its master side.
pub fn terminal_streams(master: &OwnedFd) -> Result<Streams, Error> {
    let (stdin, stdout) = (slot(master.try_clone()?)?, slot(master.try_clone()?)?);
    Ok(Streams { stdin, stdout, stderr: Slot::default() })
}

fn slot(fd: OwnedFd) -> io::Result<Slot> {
    Ok(Arc::new(Mutex::new(Some(FdStream::new(fd)?))))
}

/// Returns the next output of a process; `None` when it has ended and nothing is left. May be
/// cancelled without loss.
pub async fn next_chunk(
    stream: &mut FdStream,
    ended: &mut watch::Receiver<Option<WaitReply>>,
) -> Option<Vec<u8>> {
    let mut buffer = vec![0; CHUNK_BYTES];
    let count = tokio::select! {
        biased;
        outcome = stream.read(&mut buffer) => outcome.unwrap_or(0),
        // A child that outlives the process may keep the pipe open forever: only what is in it
        // now counts.
        _ = ended.wait_for(Option::is_some) => {
            stream.read_now(&mut buffer).ok().flatten().unwrap_or(0)
        }
    };
    buffer.truncate(count);
    (count > 0).then_some(buffer)
}
