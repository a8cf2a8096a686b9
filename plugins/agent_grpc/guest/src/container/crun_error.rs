//! Error messages of crun.

use serde_json::Value;

use crate::error::{Error, ProgramFault};

/// Returns the last message of crun's log, which has one line of JSON for each.
pub fn last_message(log: &str) -> Option<String> {
    let line = log.lines().rev().find(|line| !line.trim().is_empty())?;
    let entry: Value = serde_json::from_str(line).ok()?;
    entry.get("msg")?.as_str().map(str::to_owned)
}

/// Converts a message of crun to an error. No other code depends on the text of messages.
///
/// crun exits with 1 on any failure, and its log has a message and no error number. Checking for
/// the program here is impossible: only crun sees the container with all its mounts, as the user of
/// the process. It has two messages about a program, "executable file `x` not found in $PATH" and
/// "open executable", each followed by the text of errno, which is English: crun sets no locale.
pub fn error_of(message: String) -> Error {
    let says = |words: &str| message.contains(words);
    if !message.starts_with("executable file `") && !message.starts_with("open executable") {
        return Error::Crun(message);
    }
    let is_missing = says("not found") || says("No such file") || says("Not a directory");
    let fault = if is_missing { ProgramFault::Missing } else { ProgramFault::NotExecutable };
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

    /// Messages of crun 1.8.1 in a guest.
    #[test]
    fn messages_about_a_program_are_known() {
        let missing = [
            "executable file `nonesuch` not found in $PATH: No such file or directory",
            "executable file `/nonesuch` not found in $PATH: No such file or directory",
            "open executable: Not a directory",
        ];
        for message in missing {
            assert_eq!(fault(message), Some(ProgramFault::Missing), "{message}");
        }
        for message in
            ["open executable: Permission denied", "open executable: Operation not permitted"]
        {
            assert_eq!(fault(message), Some(ProgramFault::NotExecutable), "{message}");
        }
    }

    #[test]
    fn other_messages_are_not_about_a_program() {
        let others = [
            "mount `/x/executable file` to `data`: No such file or directory",
            "error opening file `/sys/fs/cgroup/vc/c`: Permission denied",
            "executable path not specified",
            "read from the exec fifo: No such file or directory",
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
