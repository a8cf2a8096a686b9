//! Starts the container for the caller's next command, which so needs no connection to the guest.

use std::os::fd::FromRawFd;
use std::os::unix::net::UnixListener;
use std::time::Duration;

use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use nix::unistd::geteuid;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;
use tokio::time::{sleep, timeout};
use vc_agent::proto::ContainerRequest;

use crate::Failure;
use crate::agent::Client;

const OK: &[u8] = b"ok";
/// Of a reason, which the guest writes.
const LONGEST: usize = 4 << 10;
/// How long the guest may take. The command that asks has a deadline of its own.
const START: Duration = Duration::from_secs(60);
/// Until it is tried again after an error that passes, such as too many open files.
const AGAIN: Duration = Duration::from_secs(1);

/// Serves in the background what connects to the listening socket `descriptor`, one at a time, until
/// the container was started.
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
            let answer = start(client.clone(), container_id.clone()).await;
            let text = answer.as_ref().map_or_else(|reason| shortened(reason), |()| OK);
            // The caller may be gone; the container runs then all the same.
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
    match timeout(START, client.start_container(ContainerRequest { container_id })).await {
        Ok(Ok(_)) => Ok(()),
        Ok(Err(status)) => Err(status.message().to_owned()),
        Err(_) => Err(format!("the guest's agent does not start it within {START:?}")),
    }
}

fn shortened(reason: &str) -> &[u8] {
    &reason.as_bytes()[..reason.len().min(LONGEST)]
}
