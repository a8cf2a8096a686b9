//! Starts the container for the caller's next command, which so needs no connection to the guest.

use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;
use tokio::time::sleep;
use vc_agent::proto::ContainerRequest;

use crate::Failure;
use crate::agent::Client;

const OK: &[u8] = b"ok";
/// Of a reason, which the guest writes.
const LONGEST: usize = 4 << 10;
/// Until it is tried again after an error that passes, such as too many open files.
const AGAIN: Duration = Duration::from_secs(1);

/// Serves in the background what connects to the listening socket `descriptor`, one at a time, until
/// the container was started. The guest may take as long as who asks waits: that has a deadline.
pub fn begin(descriptor: i32, client: Client, container_id: &str) -> Result<(), Failure> {
    // SAFETY: the descriptor is this program's to own, by its interface.
    let listener = unsafe { UnixListener::from_raw_fd(descriptor) };
    listener.set_nonblocking(true)?;
    let listener = tokio::net::UnixListener::from_std(listener)?;
    let container_id = container_id.to_owned();
    tokio::spawn(async move {
        loop {
            let Ok((mut stream, _)) = listener.accept().await else {
                sleep(AGAIN).await;
                continue;
            };
            if !is_trusted(&stream) {
                continue;
            }
            let answer = tokio::select! {
                answer = start(client.clone(), container_id.clone()) => answer,
                () = gone(&mut stream) => continue,
            };
            let text = answer.as_ref().map_or_else(|reason| shortened(reason), |()| OK);
            // The caller may have just gone; the container runs all the same.
            let _ = stream.write_all(text).await;
            if answer.is_ok() {
                return;
            }
        }
    });
    Ok(())
}

/// Whether the other side is this program's user, or root.
fn is_trusted(stream: &UnixStream) -> bool {
    let own = geteuid().as_raw();
    getsockopt(stream, PeerCredentials).is_ok_and(|peer| peer.uid() == own || peer.uid() == 0)
}

async fn start(mut client: Client, container_id: String) -> Result<(), String> {
    match client.start_container(ContainerRequest { container_id }).await {
        Ok(_) => Ok(()),
        Err(status) => Err(status.message().to_owned()),
    }
}

/// Returns when the other side has closed the connection, or has been killed. It sends nothing.
async fn gone(stream: &mut UnixStream) {
    let mut byte = [0];
    while let Ok(1..) = stream.read(&mut byte).await {}
}

fn shortened(reason: &str) -> &[u8] {
    &reason.as_bytes()[..reason.len().min(LONGEST)]
}
