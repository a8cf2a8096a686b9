//! The environment in which the agent runs.

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A virtual machine, as its first process.
    Vm,
    /// Namespaces on the host's kernel, as their first process.
    Sandbox,
    /// An ordinary process of the host.
    Process,
}

impl Kind {
    /// Clock, random numbers and processors are then those of the host.
    pub fn is_sandbox(self) -> bool {
        self == Self::Sandbox
    }
}
