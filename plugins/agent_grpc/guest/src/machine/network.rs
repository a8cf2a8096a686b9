//! The guest's interface: addresses, routes and MTU, set through rtnetlink(7).

use std::fs;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::Path;
use std::time::Duration;

use netlink_packet_core::{
    NLM_F_ACK, NLM_F_CREATE, NLM_F_DUMP, NLM_F_REPLACE, NLM_F_REQUEST, NetlinkHeader,
    NetlinkMessage, NetlinkPayload,
};
use netlink_packet_route::address::{
    AddressAttribute, AddressHeaderFlags, AddressMessage, AddressScope,
};
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use netlink_packet_route::route::{
    RouteAttribute, RouteFlags, RouteHeader, RouteMessage, RouteProtocol, RouteScope, RouteType,
};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};
use nix::sys::socket::{
    AddressFamily as Family, MsgFlags, SockFlag, SockProtocol, SockType, recv, send, socket,
};

use crate::error::Error;
use crate::machine::connections;
use crate::machine::interfaces::{Link, Prepared};
use crate::machine::state::Machine;
use crate::machine::uevents::until;
use crate::proto::GuestNetwork;

const INTERFACES: &str = "/sys/class/net";
const ANSWER_BYTES: usize = 64 << 10;
/// Time limit for a plugged interface to appear.
const LIMIT: Duration = Duration::from_secs(30);

/// Configures all interfaces. In a machine that was started from a saved one, it first ends the TCP
/// connections of the saved one. A clone of a template with these interfaces has nothing to do.
///
/// In a template an interface without addresses is set up, as that fills its receive queue, which
/// takes an emulated processor 20 ms. Nothing is sent or answered on it before the clone has its own
/// MAC and addresses, as it has neither an address of IPv4 nor IPv6 at all.
pub async fn configure_all(
    wanted: &[GuestNetwork],
    is_template: bool,
    machine: &Machine,
) -> Result<(), Error> {
    let prepared =
        machine.prepared.lock().map_err(|error| Error::failed(error.to_string()))?.take();
    if wanted.is_empty() {
        return Ok(());
    }
    if machine.kind.is_sandbox() {
        return Err(Error::failed("a sandbox has no network interface of its own"));
    }
    let has_addresses = |one: &GuestNetwork| !one.addresses.is_empty();
    if let Some(prepared) = &prepared
        && prepared.wanted == wanted
        && wanted.iter().all(has_addresses)
    {
        return Ok(());
    }
    machine.modules.load("net")?;
    // Nothing in a template has a connection.
    if prepared.is_none() && wanted.iter().any(|one| !one.restored_mac.is_empty()) {
        machine.modules.load("tcp-diag")?;
        connections::end_all()?;
    }
    let mut bare = Vec::new();
    for one in wanted {
        if is_template && !has_addresses(one) {
            bare.push(prepare(one, machine).await?);
            continue;
        }
        let mut known = prepared.iter().flat_map(|before| &before.bare);
        match known.find(|link| link.mac == one.restored_mac) {
            Some(link) => configure_prepared(one, link)?,
            None => configure(one, prepared.is_some(), machine).await?,
        }
    }
    if is_template {
        let mut kept = machine.prepared.lock().map_err(|error| Error::failed(error.to_string()))?;
        *kept = Some(Prepared { wanted: wanted.to_vec(), bare });
    }
    Ok(())
}

/// Waits for the interface with this MAC.
async fn appeared(mac: &str, machine: &Machine) -> Result<Link, Error> {
    let what = format!("the network interface {mac}");
    let name = until(&machine.events, LIMIT, &what, || named(mac)).await?;
    let index = fs::read_to_string(Path::new(INTERFACES).join(&name).join("ifindex"))?;
    Ok(Link { mac: mac.to_owned(), name, index: index.trim().parse()? })
}

/// Sets an interface up that has no address and gets none.
async fn prepare(wanted: &GuestNetwork, machine: &Machine) -> Result<Link, Error> {
    let link = appeared(&wanted.mac, machine).await?;
    ignore_advertisements(&link.name)?;
    set_ipv6(&link.name, false)?;
    let kernel = Kernel::open()?;
    for former in kernel.addresses(link.index)? {
        kernel.ask(RouteNetlinkMessage::DelAddress(former), 0)?;
    }
    kernel.ask(RouteNetlinkMessage::SetLink(raised(link.index, wanted.mtu)), 0)?;
    Ok(link)
}

/// Configures an interface that a template has prepared. Each request less is a millisecond of an
/// emulated start.
fn configure_prepared(wanted: &GuestNetwork, link: &Link) -> Result<(), Error> {
    let kernel = Kernel::open()?;
    let mut message = raised(link.index, wanted.mtu);
    message.attributes.push(LinkAttribute::Address(bytes_of(&wanted.mac)?));
    kernel.ask(RouteNetlinkMessage::SetLink(message), 0)?;
    if has_ipv6(wanted) {
        set_ipv6(&link.name, true)?; // its link-local address is made of the MAC
    }
    add_addresses(&kernel, wanted, link.index)
}

/// Waits for the interface with this MAC and replaces its addresses and routes by the given ones.
async fn configure(
    wanted: &GuestNetwork,
    was_prepared: bool,
    machine: &Machine,
) -> Result<(), Error> {
    let is_restored = !wanted.restored_mac.is_empty();
    let mac = if is_restored { &wanted.restored_mac } else { &wanted.mac };
    let Link { name, index, .. } = appeared(mac, machine).await?;
    ignore_advertisements(&name)?;
    let kernel = Kernel::open()?;
    for former in kernel.addresses(index)? {
        kernel.ask(RouteNetlinkMessage::DelAddress(former), 0)?;
    }
    if is_restored || was_prepared {
        // An interface that goes down loses its routes and neighbours.
        kernel.ask(RouteNetlinkMessage::SetLink(lowered(index, &wanted.mac)?), 0)?;
    }
    set_ipv6(&name, has_ipv6(wanted))?;
    kernel.ask(RouteNetlinkMessage::SetLink(raised(index, wanted.mtu)), 0)?;
    add_addresses(&kernel, wanted, index)
}

/// Adds addresses and routes to an interface that is up and has none.
fn add_addresses(kernel: &Kernel, wanted: &GuestNetwork, index: u32) -> Result<(), Error> {
    for text in &wanted.addresses {
        let (address, length) = text.split_once('/').ok_or_else(|| not_valid("interface", text))?;
        let address = address.parse().map_err(|_| not_valid("interface", text))?;
        let message = address_message(index, address, length.parse()?);
        kernel.ask(RouteNetlinkMessage::NewAddress(message), NLM_F_CREATE | NLM_F_REPLACE)?;
    }
    let mut routes = Vec::new();
    for route in &wanted.routes {
        let (address, length) = route
            .destination
            .split_once('/')
            .ok_or_else(|| not_valid("destination", &route.destination))?;
        let address = address.parse().map_err(|_| not_valid("destination", &route.destination))?;
        routes.push(((address, length.parse()?), &route.gateway));
    }
    // First the routes to what is on the interface itself: others may lead there.
    routes.sort_by_key(|(_, gateway)| !gateway.is_empty());
    for (destination, gateway) in routes {
        let via = match gateway.as_str() {
            "" => None,
            text => Some(text.parse().map_err(|_| not_valid("gateway", text))?),
        };
        let message = route_message(index, destination, via);
        kernel.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)?;
    }
    for gateway in &wanted.gateways {
        let address: IpAddr = gateway.parse().map_err(|_| not_valid("gateway", gateway))?;
        let any: IpAddr = match address {
            IpAddr::V4(_) => Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => Ipv6Addr::UNSPECIFIED.into(),
        };
        let message = route_message(index, (any, 0), Some(address));
        kernel.ask(RouteNetlinkMessage::NewRoute(message), NLM_F_CREATE | NLM_F_REPLACE)?;
    }
    Ok(())
}

fn not_valid(what: &str, text: &str) -> Error {
    Error::InvalidRequest(format!("{text:?} is not the address of a {what}"))
}

/// Returns the name of the interface with this MAC.
fn named(mac: &str) -> Option<String> {
    let interfaces = fs::read_dir(INTERFACES).ok()?.flatten();
    let mut matching = interfaces.filter(|entry| {
        fs::read_to_string(entry.path().join("address")).is_ok_and(|address| address.trim() == mac)
    });
    matching.next()?.file_name().into_string().ok()
}

/// Addresses and routes come from the host only, not from the network.
fn ignore_advertisements(name: &str) -> Result<(), Error> {
    let folder = Path::new("/proc/sys/net/ipv6/conf").join(name);
    if folder.is_dir() {
        for setting in ["accept_ra", "autoconf"] {
            fs::write(folder.join(setting), "0")?;
        }
    }
    Ok(())
}

/// An interface without addresses of IPv6 has no IPv6 at all: it would send its own messages on the
/// pod's link.
fn set_ipv6(name: &str, is_used: bool) -> Result<(), Error> {
    let file = Path::new("/proc/sys/net/ipv6/conf").join(name).join("disable_ipv6");
    if file.exists() {
        fs::write(file, if is_used { "0" } else { "1" })?;
    }
    Ok(())
}

fn has_ipv6(wanted: &GuestNetwork) -> bool {
    wanted.addresses.iter().any(|address| address.contains(':'))
}

fn raised(index: u32, mtu: u32) -> LinkMessage {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.flags = LinkFlags::Up;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Mtu(mtu)];
    message
}

fn lowered(index: u32, mac: &str) -> Result<LinkMessage, Error> {
    let mut message = LinkMessage::default();
    message.header.index = index;
    message.header.change_mask = LinkFlags::Up;
    message.attributes = vec![LinkAttribute::Address(bytes_of(mac)?)];
    Ok(message)
}

fn bytes_of(mac: &str) -> Result<Vec<u8>, Error> {
    let bytes = mac.split(':').map(|text| u8::from_str_radix(text, 16)).collect::<Result<_, _>>();
    bytes.map_err(|_| not_valid("interface", mac))
}

fn family(address: IpAddr) -> AddressFamily {
    if address.is_ipv4() { AddressFamily::Inet } else { AddressFamily::Inet6 }
}

fn address_message(index: u32, address: IpAddr, prefix_length: u8) -> AddressMessage {
    let mut message = AddressMessage::default();
    message.header.family = family(address);
    message.header.prefix_len = prefix_length;
    message.header.scope = AddressScope::Universe;
    message.header.index = index;
    if address.is_ipv6() {
        message.header.flags = AddressHeaderFlags::Nodad; // nobody else is on this link
    }
    message.attributes = vec![AddressAttribute::Local(address), AddressAttribute::Address(address)];
    message
}

fn route_message(index: u32, destination: (IpAddr, u8), via: Option<IpAddr>) -> RouteMessage {
    let (address, length) = destination;
    let mut message = RouteMessage::default();
    message.header = RouteHeader {
        address_family: family(address),
        destination_prefix_length: length,
        table: RouteHeader::RT_TABLE_MAIN,
        protocol: RouteProtocol::Static,
        scope: if via.is_some() || address.is_ipv6() {
            RouteScope::Universe
        } else {
            RouteScope::Link
        },
        kind: RouteType::Unicast,
        ..RouteHeader::default()
    };
    message.attributes = vec![RouteAttribute::Oif(index)];
    if length != 0 {
        message.attributes.push(RouteAttribute::Destination(address.into()));
    }
    if let Some(gateway) = via {
        message.header.flags = RouteFlags::Onlink;
        message.attributes.push(RouteAttribute::Gateway(gateway.into()));
    }
    message
}

/// A socket to the kernel's routing tables.
struct Kernel(OwnedFd);

impl Kernel {
    fn open() -> Result<Self, Error> {
        Ok(Self(socket(
            Family::Netlink,
            SockType::Raw,
            SockFlag::SOCK_CLOEXEC,
            SockProtocol::NetlinkRoute,
        )?))
    }

    /// Sends a request and waits for the kernel's acknowledgement.
    fn ask(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        self.send(message, NLM_F_REQUEST | NLM_F_ACK | flags)?;
        self.receive(|_| ())
    }

    /// Returns all addresses of an interface except the kernel's own link-local ones.
    fn addresses(&self, index: u32) -> Result<Vec<AddressMessage>, Error> {
        self.send(
            RouteNetlinkMessage::GetAddress(AddressMessage::default()),
            NLM_F_REQUEST | NLM_F_DUMP,
        )?;
        let mut addresses = Vec::new();
        self.receive(|answer| match answer {
            RouteNetlinkMessage::NewAddress(address)
                if address.header.index == index && address.header.scope != AddressScope::Link =>
            {
                addresses.push(address);
            }
            _ => {}
        })?;
        Ok(addresses)
    }

    fn send(&self, message: RouteNetlinkMessage, flags: u16) -> Result<(), Error> {
        let mut header = NetlinkHeader::default();
        header.flags = flags;
        let mut message = NetlinkMessage::new(header, NetlinkPayload::from(message));
        message.finalize();
        let mut bytes = vec![0; message.buffer_len()];
        message.serialize(&mut bytes);
        send(self.0.as_raw_fd(), &bytes, MsgFlags::empty())?;
        Ok(())
    }

    /// Reads answers up to the last one of a request.
    fn receive(&self, mut each: impl FnMut(RouteNetlinkMessage)) -> Result<(), Error> {
        let mut buffer = vec![0; ANSWER_BYTES];
        loop {
            let length = recv(self.0.as_raw_fd(), &mut buffer, MsgFlags::empty())?;
            let mut rest = &buffer[..length];
            while !rest.is_empty() {
                let answer = NetlinkMessage::<RouteNetlinkMessage>::deserialize(rest)
                    .map_err(|error| Error::failed(error.to_string()))?;
                let taken =
                    (answer.header.length as usize).next_multiple_of(4).clamp(4, rest.len());
                rest = &rest[taken..];
                match answer.payload {
                    NetlinkPayload::Error(error) if error.code.is_some() => {
                        return Err(error.to_io().into());
                    }
                    NetlinkPayload::Error(_) | NetlinkPayload::Done(_) => return Ok(()),
                    NetlinkPayload::InnerMessage(message) => each(message),
                    _ => {}
                }
            }
        }
    }
}
