//! What the agent runs in.

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
    /// What belongs to a machine as a whole (clock, random numbers, processors) is then the host's.
    pub fn is_sandbox(self) -> bool {
        self == Self::Sandbox
    }
}
