//! Limits of processes, getrlimit(2): the kernel's defaults are lower than programs in
//! containers expect.

use std::fs;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use serde_json::{Value, json};

use crate::error::Error;
use crate::machine::kind::Kind;

const MOST_FILES: &str = "/proc/sys/fs/nr_open";
/// The largest value that the kernel accepts, which systemd sets, too.
const NR_OPEN: u64 = 1_073_741_816;
/// The hard limit of open files of a process in a container.
const HARD_FILES: u64 = 1 << 20;

/// Sets the limits that containers inherit. The soft limit stays unchanged: programs that close all
/// possible descriptors would take long.
pub fn raise(kind: Kind) -> Result<(), Error> {
    if kind == Kind::Process {
        return Ok(()); // these are the host's
    }
    if !kind.is_sandbox() {
        fs::write(MOST_FILES, NR_OPEN.to_string())?;
    }
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    let wanted = hard.max(HARD_FILES);
    // In a sandbox the host may forbid it.
    if setrlimit(Resource::RLIMIT_NOFILE, soft, wanted).is_err() && !kind.is_sandbox() {
        return Err(Error::failed("the limit of open files cannot be raised"));
    }
    Ok(())
}

/// Replaces "unlimited" by the number of open files that the kernel allows.
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
