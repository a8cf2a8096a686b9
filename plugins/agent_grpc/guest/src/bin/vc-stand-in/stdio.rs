//! The caller's streams. Each has a thread that blocks in read or write: the descriptors may be
//! files, which cannot be polled, and are shared with other processes, so that their flags must not
//! be changed.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::StreamExt;
use tokio_stream::wrappers::ReceiverStream;
use vc_agent::proto::{InputChunk, ProcessRequest};

use crate::agent::Client;

const CHUNK_BYTES: usize = 32 << 10;
const STACK_BYTES: usize = 128 << 10;
/// Chunks that wait. Few: what the reader of the output does not take, the guest must keep.
const WAITING: usize = 1;

/// Makes all threads use one heap: each further one costs memory.
pub fn save_memory() {
    // SAFETY: takes numbers. No thread has been started.
    unsafe { libc::mallopt(libc::M_ARENA_MAX, 1) };
}

/// Gives the kernel back what is free in the heap.
pub fn give_memory_back() {
    // SAFETY: takes a number.
    unsafe { libc::malloc_trim(0) };
}

fn descriptor(number: i32) -> BorrowedFd<'static> {
    // SAFETY: nothing in this program closes the standard streams.
    unsafe { BorrowedFd::borrow_raw(number) }
}

fn spawn(work: impl FnOnce() + Send + 'static) {
    // Without the thread the process would wait forever for what it is there for.
    if let Err(error) = thread::Builder::new().stack_size(STACK_BYTES).spawn(work) {
        eprintln!("vc-stand-in: no thread can be started: {error}");
        std::process::exit(1);
    }
}

/// Waits if the descriptor is non-blocking and not ready; any other error is returned.
fn ready_again(fd: BorrowedFd<'_>, event: PollFlags, error: Errno) -> Result<(), Errno> {
    match error {
        Errno::EINTR => Ok(()),
        Errno::EAGAIN => poll(&mut [PollFd::new(fd, event)], PollTimeout::NONE).map(drop),
        error => Err(error),
    }
}

/// What is read from stdin.
pub struct Input(mpsc::Receiver<Vec<u8>>);

impl Input {
    pub fn begin() -> Self {
        let (sender, receiver) = mpsc::channel(WAITING);
        spawn(move || {
            let mut buffer = vec![0; CHUNK_BYTES];
            loop {
                match nix::unistd::read(descriptor(0), &mut buffer) {
                    Ok(0) => return,
                    Ok(count) => {
                        if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                            return; // the process no longer reads
                        }
                    }
                    // A terminal whose other side is closed (EIO), or an unreadable file.
                    Err(error) => {
                        if ready_again(descriptor(0), PollFlags::POLLIN, error).is_err() {
                            return;
                        }
                    }
                }
            }
        });
        Self(receiver)
    }

    /// Sends all input, then its end.
    pub fn feed(self, mut client: Client, process: ProcessRequest) {
        let first = InputChunk { process: Some(process), ..InputChunk::default() };
        let data =
            ReceiverStream::new(self.0).map(|data| InputChunk { data, ..InputChunk::default() });
        let last = InputChunk { is_last: true, ..InputChunk::default() };
        let chunks = tokio_stream::once(first).chain(data).chain(tokio_stream::once(last));
        tokio::spawn(async move {
            // Input that the process does not take is dropped. An end of the machine is reported
            // by the call that reads the output.
            let _ = client.write_input(chunks).await;
        });
    }
}

/// Where output is written.
pub struct Output {
    sender: mpsc::Sender<Vec<u8>>,
    done: oneshot::Receiver<()>,
}

impl Output {
    pub fn begin(number: i32) -> Self {
        let (sender, mut receiver) = mpsc::channel::<Vec<u8>>(WAITING);
        let (finished, done) = oneshot::channel();
        spawn(move || {
            while let Some(data) = receiver.blocking_recv() {
                if write_all(number, &data).is_err() {
                    break; // nobody reads it: the rest is dropped
                }
            }
            let _ = finished.send(()); // the program is ending if nobody waits
        });
        Self { sender, done }
    }

    /// Returns when the data is next to be written.
    pub async fn write(&self, data: Vec<u8>) {
        let _ = self.sender.send(data).await; // dropped when nobody reads it
    }

    /// Returns when everything was written.
    pub async fn finish(self) {
        drop(self.sender);
        let _ = self.done.await;
    }
}

fn write_all(number: i32, mut data: &[u8]) -> io::Result<()> {
    let fd = descriptor(number);
    while !data.is_empty() {
        match nix::unistd::write(fd, data) {
            Ok(count) => data = &data[count..],
            Err(error) => ready_again(fd, PollFlags::POLLOUT, error)?,
        }
    }
    Ok(())
}
