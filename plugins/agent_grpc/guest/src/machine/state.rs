//! The agent's state of its machine.

use std::sync::Mutex;

use crate::error::Error;
use crate::machine::clock;
use crate::machine::hotplug::{Hotplug, memory_bytes};
use crate::machine::interfaces::Prepared;
use crate::machine::kind::Kind;
use crate::machine::modules::Modules;
use crate::machine::uevents::{self, Uevents};

pub struct Machine {
    pub kind: Kind,
    pub modules: Modules,
    pub events: Uevents,
    /// The interfaces of a template, as they are until a clone of it is set up.
    pub prepared: Mutex<Option<Prepared>>,
    hotplug: Hotplug,
}

impl Machine {
    /// Needs the event loop, for events of devices.
    pub fn new(kind: Kind, modules: Modules) -> Result<Self, Error> {
        clock::keep(kind);
        Ok(Self {
            kind,
            modules,
            events: uevents::listen()?,
            prepared: Mutex::new(None),
            hotplug: Hotplug::at_boot(),
        })
    }

    /// Brings exactly this many vCPUs and bytes of plugged memory online. Returns the number of
    /// vCPUs online, and the memory in bytes.
    pub async fn online(&self, vcpus: usize, plugged: u64) -> Result<(usize, u64), Error> {
        // In a sandbox they are the host's: all online, and not to be changed by the agent.
        if !self.kind.is_sandbox() {
            self.hotplug.online(vcpus, plugged, &self.events).await?;
        }
        Ok((vcpus, memory_bytes()?))
    }
}
