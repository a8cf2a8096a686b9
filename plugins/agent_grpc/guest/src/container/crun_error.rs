//! What crun says when it fails.

use serde_json::Value;

use crate::error::{Error, ProgramFault};

/// The last message of crun's log, which has one line of JSON for each.
pub fn last_message(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
    let entry: Value = serde_json::from_str(line).ok()?;
    entry.get("msg")?.as_str().map(str::to_owned)
}

/// The error for a message of crun's: the only place where its words decide something.
///
/// crun exits with 1 whatever has failed, and its log has a message and no error number. The
/// program cannot be looked for instead: only crun sees the container with all its mounts, as the
/// user who is to run it. So these are the messages of `libcrun_container_exec` and of
/// `container_init_setup` about a program: "executable file `x` not found in $PATH", "open
/// executable", "exec". They end with the text of errno in the C locale.
pub fn error_of(message: String) -> Error {
    let words = message.to_lowercase();
    let says = |known: &[&str]| known.iter().any(|word| words.contains(word));
    if !says(&["executable", "exec ", "execv"]) {
        return Error::Crun(message);
    }
    let fault = match () {
        () if says(&["not found", "no such file"]) => ProgramFault::Missing,
        () if says(&["permission denied", "exec format error"]) => ProgramFault::NotExecutable,
        () => return Error::Crun(message),
    };
    Error::Program { fault, message }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(message: &str) -> Option<ProgramFault> {
        match error_of(message.to_owned()) {
            Error::Program { fault, message: kept } => {
                assert_eq!(kept, message);
                Some(fault)
            }
            Error::Crun(kept) => {
                assert_eq!(kept, message);
                None
            }
            other => panic!("{other:?}"),
        }
    }

    /// As crun 1.8.1 says them.
    #[test]
    fn messages_about_a_program_are_known() {
        let missing = [
            "executable file `nonesuch` not found in $PATH: No such file or directory",
            "executable file `/bin/x` not found: No such file or directory",
            "exec /script: No such file or directory",
        ];
        for message in missing {
            assert_eq!(fault(message), Some(ProgramFault::Missing), "{message}");
        }
        let not_executable = [
            "open executable: Permission denied",
            "executable path `/etc/passwd` is not executable: Permission denied",
            "exec container process `/x`: Exec format error",
            "exec /x: Permission denied",
        ];
        for message in not_executable {
            assert_eq!(fault(message), Some(ProgramFault::NotExecutable), "{message}");
        }
    }

    #[test]
    fn other_messages_are_not_about_a_program() {
        let others = [
            "mount `/x` to `data`: No such file or directory",
            "error opening file `/sys/fs/cgroup/vc/c`: Permission denied",
            "the requested cgroup controller `memory` is not available",
            "exec: Operation not permitted",
            "",
        ];
        for message in others {
            assert_eq!(fault(message), None, "{message}");
        }
    }

    #[test]
    fn the_last_line_of_a_log_counts_and_may_be_anything() {
        let log = "{\"msg\": \"first\"}\n{\"msg\": \"second\", \"level\": \"error\"}\n\n";
        assert_eq!(last_message(log).as_deref(), Some("second"));
        for text in ["", "\n", "no json", "[]", "{}", "{\"msg\": 1}", "{\"msg\": \"x\"", "null"] {
            assert_eq!(last_message(text), None, "{text:?}");
        }
    }
}
