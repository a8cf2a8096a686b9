//! The errors of accessing a container's files, and the exit codes for them.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::iter;

use nix::errno::Errno;

// The contract of agent_serve_files in vc_core/spec/agent.py.
const FAILED: i32 = 1;
const MISSING: i32 = 2;
const UNFIT: i32 = 3;

#[derive(Debug, thiserror::Error)]
pub enum FilesError {
    /// The request does not fit what is there.
    #[error("{0}")]
    Unfit(String),
    #[error("{0}")]
    Failed(String),
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl From<Errno> for FilesError {
    fn from(error: Errno) -> Self {
        Self::Io(error.into())
    }
}

impl FilesError {
    pub fn unfit(message: impl Into<String>) -> Self {
        Self::Unfit(message.into())
    }

    /// The path does not exist.
    pub fn missing() -> Self {
        Errno::ENOENT.into()
    }

    /// The message with all its causes, in one line: names in it may have control characters.
    pub fn line(&self) -> String {
        let causes: String = causes(self.source()).map(|cause| format!(": {cause}")).collect();
        let mut line = String::new();
        for one in format!("{self}{causes}").chars() {
            if one.is_control() {
                line.extend(one.escape_default());
            } else {
                line.push(one);
            }
        }
        line
    }

    pub fn exit_code(&self) -> i32 {
        match self {
            Self::Unfit(_) => UNFIT,
            Self::Failed(_) => FAILED,
            Self::Io(error) => {
                // tar has wrapped the error in one of its own.
                let inner =
                    causes(error.source()).filter_map(|cause| cause.downcast_ref::<io::Error>());
                let kinds = iter::once(error).chain(inner).map(io::Error::kind);
                kinds.filter_map(code_of).next().unwrap_or(FAILED)
            }
        }
    }
}

type Cause<'a> = &'a (dyn std::error::Error + 'static);

fn causes(first: Option<Cause<'_>>) -> impl Iterator<Item = Cause<'_>> {
    iter::successors(first, |cause| (**cause).source())
}

fn code_of(kind: ErrorKind) -> Option<i32> {
    match kind {
        ErrorKind::NotFound => Some(MISSING),
        ErrorKind::IsADirectory
        | ErrorKind::NotADirectory
        | ErrorKind::AlreadyExists
        | ErrorKind::DirectoryNotEmpty => Some(UNFIT),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kind_of_an_error_decides_the_exit_code() {
        assert_eq!(FilesError::missing().exit_code(), MISSING);
        assert_eq!(FilesError::from(Errno::EISDIR).exit_code(), UNFIT);
        assert_eq!(FilesError::from(Errno::EACCES).exit_code(), FAILED);
        assert_eq!(FilesError::unfit("x").exit_code(), UNFIT);
        assert_eq!(FilesError::Failed("no such file (os error 2)".into()).exit_code(), FAILED);
    }

    #[test]
    fn what_lies_below_another_error_counts() {
        let below = io::Error::from_raw_os_error(libc::ENOENT);
        let around = io::Error::other(Around(below));
        let error = FilesError::from(around);
        assert_eq!(error.exit_code(), MISSING);
        assert_eq!(error.line(), "while unpacking: No such file or directory (os error 2)");
    }

    #[test]
    fn a_message_is_one_line_whatever_is_in_a_name() {
        let error = FilesError::Unfit("the path a\nb\u{1b}[2J".into());
        assert_eq!(error.line(), r"the path a\nb\u{1b}[2J");
    }

    #[derive(Debug, thiserror::Error)]
    #[error("while unpacking")]
    struct Around(#[source] io::Error);
}
