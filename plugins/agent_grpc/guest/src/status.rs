//! Converts errors for clients: a status, a text for people, and a reason for programs.

use tonic::metadata::MetadataValue;
use tonic::{Code, Status};

use crate::error::{Error, ProgramFault};
use crate::proto::Reason;

/// The name of the trailing metadata that holds a `Reason`, see proto/agent.proto.
const REASON: &str = "vc-reason";

impl From<Error> for Status {
    fn from(error: Error) -> Self {
        let (code, reason) = kind(error.root());
        let mut status = Self::new(code, error.to_string());
        if reason != Reason::Unspecified {
            let name = MetadataValue::from_static(reason.as_str_name());
            status.metadata_mut().insert(REASON, name);
        }
        status
    }
}

fn kind(error: &Error) -> (Code, Reason) {
    match error {
        Error::Protocol { .. } => (Code::FailedPrecondition, Reason::Protocol),
        Error::InvalidRequest(_) => (Code::InvalidArgument, Reason::InvalidRequest),
        Error::NoContainer(_) => (Code::NotFound, Reason::NoContainer),
        Error::NoProcess { .. } => (Code::NotFound, Reason::NoProcess),
        Error::ContainerExists(_) => (Code::AlreadyExists, Reason::ContainerExists),
        Error::ProcessEnded(_) => (Code::FailedPrecondition, Reason::ProcessEnded),
        Error::StreamTaken(_) => (Code::FailedPrecondition, Reason::StreamTaken),
        Error::NoTerminal => (Code::FailedPrecondition, Reason::NoTerminal),
        Error::Program { fault: ProgramFault::Missing, .. } => {
            (Code::FailedPrecondition, Reason::ProgramMissing)
        }
        Error::Program { fault: ProgramFault::NotExecutable, .. } => {
            (Code::FailedPrecondition, Reason::ProgramNotExecutable)
        }
        Error::Context { cause, .. } | Error::NotUndone { cause, .. } => kind(cause),
        Error::Crun(_)
        | Error::Timeout { .. }
        | Error::Failed(_)
        | Error::Io(_)
        | Error::System(_)
        | Error::Json(_)
        | Error::Number(_)
        | Error::Range(_)
        | Error::Nul(_)
        | Error::Clock(_)
        | Error::Server(_)
        | Error::TaskEnded => (Code::Internal, Reason::Unspecified),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reason(error: Error) -> (Code, Option<String>) {
        let status = Status::from(error);
        let name = status.metadata().get(REASON).map(|name| name.to_str().unwrap().to_owned());
        (status.code(), name)
    }

    #[test]
    fn an_error_that_was_told_around_another_has_its_reason() {
        let missing = || Error::Program { fault: ProgramFault::Missing, message: "x".into() };
        let expected = (Code::FailedPrecondition, Some("REASON_PROGRAM_MISSING".to_owned()));
        assert_eq!(reason(missing()), expected);
        let around = Error::context("while trying")(missing());
        let undoing = Box::new(Error::failed("a mount stays"));
        let error = Error::NotUndone { cause: Box::new(around), undoing };
        assert_eq!(error.to_string(), "while trying: x; and: a mount stays");
        assert_eq!(reason(error), expected);
    }

    #[test]
    fn what_fails_in_the_guest_has_no_reason() {
        assert_eq!(reason(Error::failed("x")), (Code::Internal, None));
        assert_eq!(reason(std::io::Error::from_raw_os_error(2).into()), (Code::Internal, None));
    }

    #[test]
    fn the_words_of_a_file_decide_nothing() {
        let told = Error::Crun("no container c in this guest".into());
        assert_eq!(reason(told), (Code::Internal, None));
    }
}
