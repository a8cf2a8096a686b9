//! Limits of processes, getrlimit(2): what the kernel begins with is less than programs in
//! containers expect.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::kind::Kind;

const MOST_FILES: &str = "/proc/sys/fs/nr_open";
/// The most that the kernel accepts there, which systemd sets, too.
const NR_OPEN: u64 = 1_073_741_816;
/// Up to where a process of a container may raise its number of open files.
const HARD_FILES: u64 = 1 << 20;

/// What containers inherit. What a process may have at once stays as it is: programs that close all
/// that they could have open would take long.
pub fn raise(kind: Kind) -> Result<(), Error> {
    if kind == Kind::Process {
        return Ok(()); // these are the host's
    }
    if !kind.is_sandbox() {
        fs::write(MOST_FILES, NR_OPEN.to_string())?;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(HARD_FILES);
    // In a sandbox the host may have the last word.
    if setrlimit(Resource::RLIMIT_NOFILE, soft, wanted).is_err() && !kind.is_sandbox() {
        return Err(Error::failed("the limit of open files cannot be raised"));
    }
    Ok(())
}

/// No process can have more files open than the kernel allows: "unlimited" is that many.
pub fn fit(process: &mut Value) {
    let most = fs::read_to_string(MOST_FILES)
        .ok()
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(HARD_FILES);
    for limit in process["rlimits"].as_array_mut().into_iter().flatten() {
        if limit["type"] == json!("RLIMIT_NOFILE") {
            for end in ["soft", "hard"] {
                let wanted = limit[end].as_u64().unwrap_or(most);
                limit[end] = json!(wanted.min(most));
            }
        }
    }
}
