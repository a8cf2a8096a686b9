//! Virtio-serial ports that are plugged and unplugged: each is one client's connection.
//!
//! A port whose host side is not connected reads as end of file and polls as hung up, and the event
//! loop would keep that state. Therefore new ports first wait in a separate, edge-triggered epoll,
//! which reports the connection of the host side; only then do they become a stream.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use tokio::sync::mpsc;

use crate::error::Error;
use crate::fd_stream::{FdStream, watched};
use crate::machine::uevents::Uevents;

const CLASS: &str = "/sys/class/virtio-ports";
/// Ports with other names are not the agent's.
const PREFIX: &str = "vc.agent.";

/// Sends a stream for each port that a client has connected to, until the receiver is closed.
pub async fn watch(
    mut events: Uevents,
    connected: mpsc::Sender<io::Result<FdStream>>,
) -> Result<(), Error> {
    let edges = watched(Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?.0)?;
    let mut known: HashMap<String, Port> = HashMap::new();
    let mut number = 0;
    loop {
        events.borrow_and_update();
        let present = named_ports();
        known.retain(|name, _| present.contains_key(name));
        for (name, device) in present {
            if known.contains_key(&name) {
                continue;
            }
            if let Ok(fd) = open(&device) {
                number += 1;
                let flags = EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT | EpollFlags::EPOLLET;
                add(edges.get_ref(), &fd, EpollEvent::new(flags, number))?;
                known.insert(name, Port { number, waiting: Some(fd) });
            }
        }
        tokio::select! {
            changed = events.changed() => changed?,
            guard = edges.readable() => {
                let numbers = connected_ports(edges.get_ref())?;
                if numbers.is_empty() {
                    guard?.clear_ready();
                }
                for port in known.values_mut().filter(|port| numbers.contains(&port.number)) {
                    if let Some(fd) = port.waiting.take() {
                        remove(edges.get_ref(), &fd)?;
                        connected.send(FdStream::new(fd)).await?;
                    }
                }
            }
        }
    }
}

struct Port {
    number: u64,
    /// Set until the host side has connected. A port serves one client and is then left alone until
    /// it is unplugged.
    waiting: Option<OwnedFd>,
}

fn named_ports() -> HashMap<String, String> {
    let Ok(entries) = fs::read_dir(CLASS) else { return HashMap::new() };
    entries
        .flatten()
        .filter_map(|entry| {
            let device = entry.file_name().into_string().ok()?;
            let name = fs::read_to_string(entry.path().join("name")).ok()?;
            let name = name.trim().to_owned();
            name.starts_with(PREFIX).then_some((name, device))
        })
        .collect()
}

fn open(device: &str) -> io::Result<OwnedFd> {
    let file = fs::OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(format!("/dev/{device}"))?;
    Ok(file.into())
}

fn connected_ports(edges: &OwnedFd) -> nix::Result<Vec<u64>> {
    let mut events = [EpollEvent::empty(); 16];
    let count = with_epoll(edges, |epoll| epoll.wait(&mut events, EpollTimeout::ZERO))?;
    let spoken = &events[..count];
    let ready = |event: &&EpollEvent| !event.events().contains(EpollFlags::EPOLLHUP);
    // A hang-up is the usual first edge of an unconnected port: keep asking until the queue is
    // empty.
    let mut numbers: Vec<u64> = spoken.iter().filter(ready).map(EpollEvent::data).collect();
    if count > 0 && numbers.is_empty() {
        numbers.extend(connected_ports(edges)?);
    }
    Ok(numbers)
}

fn add(edges: &OwnedFd, fd: &OwnedFd, event: EpollEvent) -> nix::Result<()> {
    with_epoll(edges, |epoll| epoll.add(fd, event))
}

fn remove(edges: &OwnedFd, fd: &OwnedFd) -> nix::Result<()> {
    with_epoll(edges, |epoll| epoll.delete(fd))
}

/// The event loop owns the descriptor; nix's type requires ownership, too, so it gets a duplicate
/// for one call.
fn with_epoll<T>(edges: &OwnedFd, call: impl FnOnce(&Epoll) -> nix::Result<T>) -> nix::Result<T> {
    let lent = edges
        .try_clone()
        .map_err(|error| nix::errno::Errno::from_raw(error.raw_os_error().unwrap_or(0)))?;
    call(&Epoll(lent))
}
