//! The state of the agent.

use crate::container::crun::Crun;
use crate::container::holds::Holds;
use crate::container::table::Containers;
use crate::container::warm_crun::WarmCruns;
use crate::machine::state::Machine;
use crate::process::log::Gate;
use crate::process::reaper::Reaper;
use crate::storage::mounts::Mounts;

pub struct Agent {
    pub machine: Machine,
    pub mounts: Mounts,
    pub log_gate: Gate,
    pub reaper: Reaper,
    pub crun: Crun,
    pub warm_cruns: WarmCruns,
    pub containers: Containers,
    pub holds: Holds,
}

impl Agent {
    pub fn new(machine: Machine, reaper: Reaper) -> Self {
        Self {
            machine,
            mounts: Mounts::default(),
            log_gate: Gate::default(),
            crun: Crun::new(reaper.clone()),
            reaper,
            warm_cruns: WarmCruns::default(),
            containers: Containers::default(),
            holds: Holds::default(),
        }
    }
}
