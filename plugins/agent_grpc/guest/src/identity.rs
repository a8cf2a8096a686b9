//! What one guest must not have in common with another, a clone of the same machine: random numbers, name, ids, clock.

use std::fs;

use serde_json::{Value, json};

use crate::Failure;
use crate::machine;
use crate::proto::SetUpPodRequest;

const FOLDER: &str = "/run/vc/identity";
const OPTIONAL: &str = "x-vc-optional";

/// The seed comes first: what is made up here must differ between clones.
pub fn take(request: &SetUpPodRequest) -> Result<(), Failure> {
    if !request.seed.is_empty() {
        machine::seed(&request.seed)?;
    }
    if request.time_ns != 0 {
        machine::set_time(request.time_ns)?;
    }
    if !request.hostname.is_empty() {
        machine::set_hostname(&request.hostname)?;
    }
    fs::create_dir_all(FOLDER)?;
    // The kernel makes its own boot id up once; a guest that goes on from a saved one needs another.
    fs::write(format!("{FOLDER}/boot-id"), fs::read_to_string("/proc/sys/kernel/random/uuid")?)?;
    fs::write(format!("{FOLDER}/machine-id"), format!("{}\n", request.machine_id))?;
    Ok(())
}

/// Takes mounts out of a container's spec that are wanted only where its root file system has the file.
pub fn drop_absent_mounts(spec: &mut Value, rootfs: &str) {
    let Some(mounts) = spec["mounts"].as_array_mut() else { return };
    mounts.retain_mut(|mount| {
        let Some(options) = mount["options"].as_array_mut() else { return true };
        let before = options.len();
        options.retain(|option| option != &json!(OPTIONAL));
        let is_optional = options.len() < before;
        let target = mount["destination"].as_str().unwrap_or_default();
        !is_optional || fs::symlink_metadata(format!("{rootfs}{target}")).is_ok_and(|meta| meta.is_file())
    });
}
