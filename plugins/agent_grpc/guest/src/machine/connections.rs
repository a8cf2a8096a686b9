//! Ends the TCP connections of a saved machine in one that starts from it, through sock_diag(7).

use std::net::Ipv6Addr;
use std::os::fd::{AsRawFd, OwnedFd};

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::error::Error;

const SOCK_DIAG_BY_FAMILY: u16 = 20;
const SOCK_DESTROY: u16 = 21;
/// All states (net/tcp_states.h) but TIME_WAIT, CLOSE and LISTEN.
const CONNECTED: u32 = 0x1fff & !(1 << 6 | 1 << 7 | 1 << 10 | 1);
const HEADER_BYTES: usize = 16;
const ID_BYTES: usize = 48;
const ANSWER_BYTES: usize = 64 << 10;

/// A socket as linux/inet_diag.h describes it: its family, and a `struct inet_diag_sockid`.
struct Found {
    family: u8,
    id: [u8; ID_BYTES],
}

impl Found {
    fn parse(message: &[u8]) -> Option<Self> {
        let id = message.get(4..4 + ID_BYTES)?.try_into().ok()?;
        Some(Self { family: *message.first()?, id })
    }

    /// Whether both ends are in the guest.
    fn is_loopback(&self) -> bool {
        let source: [u8; 16] = self.id[4..20].try_into().unwrap_or_default();
        if i32::from(self.family) == libc::AF_INET {
            return source[0] == 127;
        }
        let address = Ipv6Addr::from(source);
        address.is_loopback() || address.to_ipv4_mapped().is_some_and(|mapped| mapped.is_loopback())
    }
}

/// Ends all TCP connections but those inside the guest: their programs get ECONNABORTED.
pub fn end_all() -> Result<(), Error> {
    let diag = socket(
        AddressFamily::Netlink,
        SockType::Raw,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let mut found = Vec::new();
    for family in [libc::AF_INET, libc::AF_INET6] {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_DUMP) as u16;
        ask(&diag, SOCK_DIAG_BY_FAMILY, flags, family as u8, &[0; ID_BYTES])?;
        answers(&diag, &mut found)?;
    }
    for one in found.iter().filter(|one| !one.is_loopback()) {
        let flags = (libc::NLM_F_REQUEST | libc::NLM_F_ACK) as u16;
        ask(&diag, SOCK_DESTROY, flags, one.family, &one.id)?;
        match answers(&diag, &mut Vec::new()) {
            Ok(()) | Err(Errno::ENOENT) => {} // it ended by itself
            Err(error) => {
                let what = "a connection of the saved machine cannot be ended";
                return Err(Error::context(what)(error));
            }
        }
    }
    Ok(())
}

/// Sends a `struct inet_diag_req_v2`.
fn ask(diag: &OwnedFd, kind: u16, flags: u16, family: u8, id: &[u8]) -> Result<(), Error> {
    let mut bytes = Vec::with_capacity(HEADER_BYTES + 8 + ID_BYTES);
    bytes.extend(((HEADER_BYTES + 8 + ID_BYTES) as u32).to_ne_bytes());
    bytes.extend(kind.to_ne_bytes());
    bytes.extend(flags.to_ne_bytes());
    bytes.extend([0; 8]); // sequence number and port
    bytes.extend([family, libc::IPPROTO_TCP as u8, 0, 0]);
    bytes.extend(CONNECTED.to_ne_bytes());
    bytes.extend(id);
    send(diag.as_raw_fd(), &bytes, MsgFlags::empty())?;
    Ok(())
}

/// Reads answers up to the last one of a request.
fn answers(diag: &OwnedFd, found: &mut Vec<Found>) -> Result<(), Errno> {
    let mut buffer = vec![0; ANSWER_BYTES];
    loop {
        let length = recv(diag.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
        let mut rest = &buffer[..length];
        while rest.len() >= HEADER_BYTES {
            let size = u32::from_ne_bytes([rest[0], rest[1], rest[2], rest[3]]) as usize;
            let body = rest.get(HEADER_BYTES..size).ok_or(Errno::EBADMSG)?;
            match i32::from(u16::from_ne_bytes([rest[4], rest[5]])) {
                libc::NLMSG_DONE => return Ok(()),
                libc::NLMSG_ERROR => {
                    let code = body.first_chunk().map_or(0, |code| i32::from_ne_bytes(*code));
                    return if code == 0 { Ok(()) } else { Err(Errno::from_raw(-code)) };
                }
                _ => found.extend(Found::parse(body)),
            }
            rest = rest.get(size.next_multiple_of(4)..).unwrap_or_default();
        }
    }
}
