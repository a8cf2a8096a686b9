//! Requests to the agent: that any bytes are a message or an error, and what is done with the
//! documents in them before the system is asked. The first byte chooses the message.

use std::sync::LazyLock;

use prost::Message;
use tempfile::TempDir;
use vc_agent::container::rootfs::Opened;
use vc_agent::container::{document, names, rlimits, users};
use vc_agent::machine::kind::Kind;
use vc_agent::machine::sandbox;
use vc_agent::proto::*;

static ROOT: LazyLock<TempDir> = LazyLock::new(|| tempfile::tempdir().unwrap());

pub fn check(data: &[u8]) {
    let Some((kind, bytes)) = data.split_first() else { return };
    match kind % 16 {
        0 => decoded::<NegotiateRequest>(bytes),
        1 => decoded::<SetUpPodRequest>(bytes),
        2 => decoded::<OnlineResourcesRequest>(bytes),
        3 => decoded::<UpdateContainerRequest>(bytes),
        4 => decoded::<ContainerRequest>(bytes),
        5 => decoded::<ProcessRequest>(bytes),
        6 => decoded::<FilesRequest>(bytes),
        7 => decoded::<InputChunk>(bytes),
        8 => decoded::<SignalRequest>(bytes),
        9 => decoded::<ResizeRequest>(bytes),
        10 => {
            if let Ok(request) = CreateContainerRequest::decode(bytes) {
                spec(&request.oci_spec);
            }
        }
        11 => {
            if let Ok(request) = ExecRequest::decode(bytes) {
                process(&request.oci_process);
            }
        }
        12 | 13 => spec(bytes),
        _ => process(bytes),
    }
}

fn decoded<T: Message + Default + PartialEq + std::fmt::Debug>(bytes: &[u8]) {
    if let Ok(message) = T::decode(bytes) {
        assert_eq!(T::decode(&message.encode_to_vec()[..]).as_ref(), Ok(&message));
    }
}

/// As `Agent::make` does.
fn spec(bytes: &[u8]) {
    let Ok(mut spec) = document::spec(bytes) else { return };
    spec["root"]["path"] = "/rootfs".into();
    spec["linux"]["cgroupsPath"] = "/vc/c".into();
    rlimits::fit(&mut spec["process"]);
    let root = Opened::folder(ROOT.path()).unwrap();
    if users::complete(&mut spec["process"], &root).is_ok() {
        names::drop_absent_mounts(&mut spec, &root);
        for kind in [Kind::Vm, Kind::Sandbox] {
            sandbox::adapt(kind, &mut spec);
        }
        let _ = spec["linux"]["resources"]["devices"].as_array_mut();
        let _ = spec["linux"]["devices"].as_array_mut();
    }
}

/// As `Agent::exec` does.
fn process(bytes: &[u8]) {
    let Ok(mut process) = document::process(bytes) else { return };
    rlimits::fit(&mut process);
    if users::complete(&mut process, &Opened::folder(ROOT.path()).unwrap()).is_ok() {
        sandbox::adapt_process(Kind::Sandbox, &mut process);
    }
}
