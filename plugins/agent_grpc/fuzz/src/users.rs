//! passwd(5) and group(5) of a container, and the name of a user in them.
//!
//! The bytes are the name, passwd and group, each but the last ended by a zero byte.

use std::fs;

use serde_json::json;
use vc_agent::container::rootfs::Opened;
use vc_agent::container::users::complete;

/// The largest id that container engines accept.
const LARGEST_ID: u64 = i32::MAX as u64;

pub fn check(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == 0);
    let mut next = || parts.next().unwrap_or_default();
    let name = String::from_utf8_lossy(next()).into_owned();
    let root = tempfile::tempdir().unwrap();
    fs::create_dir(root.path().join("etc")).unwrap();
    fs::write(root.path().join("etc/passwd"), next()).unwrap();
    fs::write(root.path().join("etc/group"), next()).unwrap();
    let mut process = json!({ "user": { "username": name, "groups": [name] }, "env": [] });
    if complete(&mut process, &Opened::folder(root.path()).unwrap()).is_ok() {
        let user = &process["user"];
        let more = user["additionalGids"].as_array().unwrap();
        for id in [&user["uid"], &user["gid"]].into_iter().chain(more) {
            assert!(id.as_u64().unwrap() <= LARGEST_ID, "{user}");
        }
    }
}
