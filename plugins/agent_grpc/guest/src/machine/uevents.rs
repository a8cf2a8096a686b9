//! The kernel's device events, as a counter that changes: waiting for a device needs no polling.

use std::os::fd::{AsRawFd, OwnedFd};
use std::time::Duration;

use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, recv, socket,
};
use tokio::io::unix::AsyncFd;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use crate::error::Error;
use crate::fd_stream::watched;

pub type Uevents = watch::Receiver<u64>;

const KERNEL_EVENTS: u32 = 1;

pub fn listen() -> Result<Uevents, Error> {
    let fd = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkKObjectUEvent,
    )?;
    bind(fd.as_raw_fd(), &NetlinkAddr::new(0, KERNEL_EVENTS))?;
    let (sender, receiver) = watch::channel(0);
    tokio::spawn(count(watched(fd)?, sender));
    Ok(receiver)
}

async fn count(socket: AsyncFd<OwnedFd>, counter: watch::Sender<u64>) -> Result<(), Error> {
    let mut buffer = [0; 4096];
    loop {
        let mut guard = socket.readable().await?;
        // Lost messages (ENOBUFS) are events, too: waiters check /sys, not the message.
        match recv(socket.as_raw_fd(), &mut buffer, MsgFlags::empty()) {
            Err(nix::errno::Errno::EAGAIN) => guard.clear_ready(),
            _ => counter.send_modify(|seen| *seen += 1),
        }
    }
}

/// Returns the first `Some` of `look`, called now and after each event; an error naming `what`
/// after `limit`.
pub async fn until<T>(
    events: &Uevents,
    limit: Duration,
    what: &str,
    mut look: impl FnMut() -> Option<T>,
) -> Result<T, Error> {
    let mut events = events.clone();
    let deadline = Instant::now() + limit;
    loop {
        events.borrow_and_update();
        if let Some(found) = look() {
            return Ok(found);
        }
        match timeout_at(deadline, events.changed()).await {
            Ok(outcome) => outcome?,
            Err(_) => {
                let what = format!("{what} did not appear");
                return Err(Error::Timeout { what, seconds: limit.as_secs() });
            }
        }
    }
}
