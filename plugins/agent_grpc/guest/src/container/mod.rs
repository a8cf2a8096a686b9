//! Containers: what they are made from, how they are made by crun, what is done with them.

pub mod crun;
pub mod exec;
pub mod file_process;
pub mod files;
pub mod pod;
pub mod restart;
pub mod rlimits;
pub mod rootfs;
pub mod supervise;
pub mod table;
pub mod users;
pub mod volumes;
pub mod warm_crun;
