//! Connections of the host's programs to the loopback of the machine.
//!
//! The listener gets those that nft has redirected in the pod's network namespace. The kernel tells
//! which port each of them was meant for.

use std::io::{self, ErrorKind};
use std::net::TcpListener;
use std::os::fd::FromRawFd;
use std::sync::Arc;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::OriginalDst;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{ReadHalf, WriteHalf};
use tokio::sync::{Semaphore, mpsc};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Streaming;
use vc_agent::proto::DialChunk;

use crate::agent::Client;
use crate::{Failure, stdio};

/// Connections at once; more wait to be accepted.
pub const MOST: usize = 16;
const CHUNK_BYTES: usize = 16 << 10;
/// Chunks that wait for the agent.
const WAITING: usize = 1;

/// Forwards in the background what connects to the listening socket `descriptor`.
pub fn begin(descriptor: i32, client: Client) -> Result<(), Failure> {
    // SAFETY: the descriptor is this program's to own, by its interface.
    let listener = unsafe { TcpListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::TcpListener::from_std(listener)?;
    tokio::spawn(async move {
        let free = Arc::new(Semaphore::new(MOST));
        // The semaphore is never closed.
        while let Ok(permit) = free.clone().acquire_owned().await {
            let mut stream = match listener.accept().await {
                Ok((stream, _)) => stream,
                Err(error) if error.kind() == ErrorKind::ConnectionAborted => continue,
                Err(error) => {
                    eprintln!("vc-stand-in: no more connections are forwarded: {error}");
                    return;
                }
            };
            let client = client.clone();
            tokio::spawn(async move {
                // The caller is told of a failure by a reset; whether that works does not matter.
                if carry(&mut stream, client).await.is_err() {
                    let _ = stream.set_zero_linger();
                }
                drop((stream, permit));
                stdio::give_memory_back();
            });
        }
    });
    Ok(())
}

/// Carries one connection to its end.
async fn carry(stream: &mut TcpStream, mut client: Client) -> Result<(), Failure> {
    let port = match getsockopt(stream, OriginalDst) {
        Ok(address) => u16::from_be(address.sin_port),
        Err(_) => stream.local_addr()?.port(), // it was not redirected
    };
    let (sender, chunks) = mpsc::channel(WAITING);
    let first = DialChunk { port: port.into(), ..DialChunk::default() };
    let chunks = tokio_stream::once(first).chain(ReceiverStream::new(chunks));
    let mut answers = client.dial(chunks).await?.into_inner();
    answers.message().await?; // it is connected
    let (mut reading, mut writing) = stream.split();
    let send = async { send(&mut reading, sender).await.map_err(Failure::from) };
    tokio::try_join!(send, receive(&mut answers, &mut writing))?;
    Ok(())
}

/// Sends the agent what is read until the end of that.
async fn send(reading: &mut ReadHalf<'_>, chunks: mpsc::Sender<DialChunk>) -> io::Result<()> {
    let mut buffer = vec![0; CHUNK_BYTES];
    loop {
        let count = tokio::select! {
            count = reading.read(&mut buffer) => count?,
            () = chunks.closed() => 0, // the guest reads no more
        };
        let chunk = DialChunk { data: buffer[..count].to_vec(), ..DialChunk::default() };
        if count == 0 || chunks.send(chunk).await.is_err() {
            return Ok(());
        }
    }
}

/// Writes what the agent sends until the end of that, which the other side then sees.
async fn receive(
    answers: &mut Streaming<DialChunk>,
    writing: &mut WriteHalf<'_>,
) -> Result<(), Failure> {
    while let Some(chunk) = answers.message().await? {
        writing.write_all(&chunk.data).await?;
    }
    Ok(writing.shutdown().await?)
}
