//! Connections of the host's programs to addresses of the machine.
//!
//! The listener gets those that nft has redirected in the pod's network namespace. The kernel tells
//! what each of them was meant for. They have a channel of their own: what nobody takes must not
//! hold up the streams and signals of the process.

use std::io::{self, ErrorKind};
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::FromRawFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::{sleep, timeout};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use vc_agent::proto::DialChunk;

use crate::agent::{self, Bounds, Client};
use crate::{Failure, stdio};

/// Connections at once; more wait to be accepted.
const MOST: u32 = 16;
const CHUNK_BYTES: usize = 16 << 10;
const WINDOW_BYTES: u32 = 32 << 10;
const BOUNDS: Bounds = Bounds {
    window: WINDOW_BYTES,
    all_windows: WINDOW_BYTES * MOST,
    message: 64 << 10, // twice what the agent sends
    unsent: 32 << 10,
};
/// Chunks that wait for the agent.
const WAITING: usize = 1;
/// How long the guest may take to connect.
const CONNECT: Duration = Duration::from_secs(30);
/// How long the guest may take nothing of what is sent to it.
const STUCK: Duration = Duration::from_secs(300);
/// How long nothing may arrive when the caller has ended its side, as one that is gone has, too.
const HALF_CLOSED: Duration = Duration::from_secs(60);
/// Until it is tried again after an error that passes, such as too many open files.
const AGAIN: Duration = Duration::from_secs(1);

/// Forwards in the background what connects to the listening socket `descriptor`.
pub fn begin(descriptor: i32, channel: String) -> Result<(), Failure> {
    // SAFETY: the descriptor is this program's to own, by its interface.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    let agent = Arc::new(Agent { channel, client: Mutex::default() });
    tokio::spawn(async move {
        let free = Arc::new(Semaphore::new(MOST as usize));
        // The semaphore is never closed.
        while let Ok(permit) = free.clone().acquire_owned().await {
            let mut stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(_) => {
                    sleep(AGAIN).await;
                    continue;
                }
            };
            let agent = agent.clone();
            tokio::spawn(async move {
                // The caller is told of a failure by a reset; whether that works does not matter.
                if carry(&mut stream, &agent).await.is_err() {
                    let _ = stream.set_zero_linger();
                }
                drop((stream, permit));
                stdio::give_memory_back();
            });
        }
    });
    Ok(())
}

/// The agent, to which the first connection connects.
struct Agent {
    channel: String,
    client: Mutex<Option<Client>>,
}

impl Agent {
    async fn client(&self) -> Result<Client, Failure> {
        let mut client = self.client.lock().await;
        if let Some(found) = &*client {
            return Ok(found.clone());
        }
        Ok(client.insert(agent::connect(&self.channel, &BOUNDS).await?).clone())
    }
}

/// Carries one connection to its end.
async fn carry(stream: &mut TcpStream, agent: &Agent) -> Result<(), Failure> {
    let (address, port) = match getsockopt(stream, OriginalDst) {
        Ok(meant) => (Ipv4Addr::from(u32::from_be(meant.sin_addr.s_addr)), meant.sin_port.to_be()),
        Err(_) => (Ipv4Addr::LOCALHOST, stream.local_addr()?.port()), // it was not redirected
    };
    let address = if address.is_loopback() { vec![] } else { address.octets().into() };
    let (sender, chunks) = mpsc::channel(WAITING);
    let first = DialChunk { port: port.into(), address, ..DialChunk::default() };
    let chunks = tokio_stream::once(first).chain(ReceiverStream::new(chunks));
    let connecting = async {
        let mut answers = agent.client().await?.dial(chunks).await?.into_inner();
        answers.message().await?; // it is connected
        Ok::<_, Failure>(answers)
    };
    let mut answers = timeout(CONNECT, connecting).await??;
    let (mut reading, mut writing) = stream.split();
    let (ended, is_ended) = watch::channel(false);
    let send = async {
        send(&mut reading, sender).await?;
        ended.send_replace(true);
        Ok(())
    };
    tokio::try_join!(send, receive(&mut answers, &mut writing, is_ended))?;
    Ok(())
}

/// Sends the agent what is read until the end of that.
async fn send(reading: &mut ReadHalf<'_>, chunks: mpsc::Sender<DialChunk>) -> Result<(), Failure> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = tokio::select! {
            count = reading.read(&mut buffer) => count?,
            () = chunks.closed() => return Ok(()), // the guest reads no more
        };
        let data = buffer[..count].to_vec();
        let chunk = DialChunk { data, is_last: count == 0, ..DialChunk::default() };
        if timeout(STUCK, chunks.send(chunk)).await?.is_err() || count == 0 {
            return Ok(());
        }
    }
}

/// Writes what the agent sends until the end of that, which the other side then sees.
async fn receive(
    answers: &mut Streaming<DialChunk>,
    writing: &mut WriteHalf<'_>,
    mut is_ended: watch::Receiver<bool>,
) -> Result<(), Failure> {
    loop {
        let next = tokio::select! {
            next = answers.message() => next?,
            () = idle(&mut is_ended) => return Err(io::Error::from(ErrorKind::TimedOut).into()),
        };
        let Some(chunk) = next else { return Ok(writing.shutdown().await?) };
        writing.write_all(&chunk.data).await?;
    }
}

/// Returns when the caller has ended its side, and some time has gone by since.
async fn idle(is_ended: &mut watch::Receiver<bool>) {
    // The sender lives as long as the connection.
    let _ = is_ended.wait_for(|ended| *ended).await;
    sleep(HALF_CLOSED).await;
}
