//! Containers: their files, their creation with crun, and the operations on them.

pub mod agent;
pub mod checkpoint;
pub mod create;
pub mod crun;
pub mod crun_error;
pub mod document;
pub mod exec;
pub mod file_process;
pub mod files;
pub mod folder;
pub mod health;
pub mod holds;
pub mod launch;
pub mod lifecycle;
pub mod names;
pub mod pod;
pub mod restart;
pub mod rlimits;
pub mod rootfs;
pub mod supervise;
pub mod table;
pub mod users;
pub mod volumes;
pub mod warm_crun;
