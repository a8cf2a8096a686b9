//! A FUSE file system between containers and the 9p shares of the host.

mod attributes;
mod fd_cache;
mod fuse;
mod nodes;
mod passthrough;
pub mod shares;
mod xattrs;
