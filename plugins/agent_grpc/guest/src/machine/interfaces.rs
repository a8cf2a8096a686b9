//! What a template knows of its network interfaces, for its clones.

use crate::proto::GuestNetwork;

/// The interfaces of a template, as they are until a clone of it is set up.
pub struct Prepared {
    pub wanted: Vec<GuestNetwork>,
    /// Those without addresses.
    pub bare: Vec<Link>,
}

/// An interface, as the kernel knows it.
pub struct Link {
    pub mac: String,
    pub name: String,
    pub index: u32,
}
