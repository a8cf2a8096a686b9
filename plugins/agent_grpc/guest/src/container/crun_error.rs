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
