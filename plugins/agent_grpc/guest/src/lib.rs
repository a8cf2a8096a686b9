//! The agent of a virtcontainers guest. Each module imports only from modules below it in this
//! list: plugins/agent_grpc/tests/test_guest_layers.py checks it.

pub mod server;

pub mod service;

pub mod status;

pub mod container;

pub mod process;

pub mod storage;

pub mod share_fs;

pub mod machine;

pub mod fd_stream;

pub mod error;

pub mod proto {
    tonic::include_proto!("virtcontainers.agent.v1");
}
