//! Errors of the agent. `status` determines how they are reported to a client.

use std::io;

use nix::errno::Errno;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinError;

pub type Result<T, E = Error> = std::result::Result<T, E>;

/// The problem with the program of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProgramFault {
    Missing,
    NotExecutable,
}

#[derive(Debug, thiserror::Error)]
pub enum Error {
    // Errors that a client can act on.
    #[error("the guest's agent speaks protocol {ours}, this client {oldest} to {newest}")]
    Protocol { ours: u32, oldest: u32, newest: u32 },
    #[error("{0}")]
    InvalidRequest(String),
    #[error("no container {0} in this guest")]
    NoContainer(String),
    #[error("container {container} has no process {token}")]
    NoProcess { container: String, token: String },
    #[error("container {0} exists in this guest")]
    ContainerExists(String),
    #[error("process {0} has ended")]
    ProcessEnded(String),
    #[error("another client {0} this process")]
    StreamTaken(&'static str),
    #[error("the process has no terminal")]
    NoTerminal,
    #[error("{message}")]
    Program { fault: ProgramFault, message: String },

    // Failures in the guest.
    #[error("{0}")]
    Crun(String),
    #[error("{what} within {seconds} s")]
    Timeout { what: String, seconds: u64 },
    #[error("{what}: {cause}")]
    Context { what: String, cause: Box<Error> },
    /// An operation failed, and so did its undo.
    #[error("{cause}; and: {undoing}")]
    NotUndone { cause: Box<Error>, undoing: Box<Error> },
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error(transparent)]
    System(#[from] Errno),
    #[error(transparent)]
    Json(#[from] serde_json::Error),
    #[error(transparent)]
    Number(#[from] std::num::ParseIntError),
    #[error(transparent)]
    Range(#[from] std::num::TryFromIntError),
    #[error(transparent)]
    Nul(#[from] std::ffi::NulError),
    #[error(transparent)]
    Clock(#[from] std::time::SystemTimeError),
    #[error(transparent)]
    Server(#[from] tonic::transport::Error),
    /// A task of the agent has ended before it had an answer.
    #[error("a task of the agent has ended without an answer")]
    TaskEnded,
}

impl Error {
    pub fn failed(message: impl Into<String>) -> Self {
        Self::Failed(message.into())
    }

    /// For `map_err`: prefixes an error with the operation that failed.
    pub fn context<E: Into<Self>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        |cause| Self::Context { what: what.into(), cause: Box::new(cause.into()) }
    }

    /// Returns the innermost error.
    pub fn root(&self) -> &Self {
        match self {
            Self::Context { cause, .. } | Self::NotUndone { cause, .. } => cause.root(),
            own => own,
        }
    }
}

impl From<watch::error::RecvError> for Error {
    fn from(_: watch::error::RecvError) -> Self {
        Self::TaskEnded
    }
}

impl From<oneshot::error::RecvError> for Error {
    fn from(_: oneshot::error::RecvError) -> Self {
        Self::TaskEnded
    }
}

impl<T> From<mpsc::error::SendError<T>> for Error {
    fn from(_: mpsc::error::SendError<T>) -> Self {
        Self::TaskEnded
    }
}

impl From<JoinError> for Error {
    fn from(_: JoinError) -> Self {
        Self::TaskEnded
    }
}
