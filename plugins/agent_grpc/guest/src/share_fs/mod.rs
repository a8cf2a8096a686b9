//! A FUSE file system between containers and the 9p shares of the host.

mod attributes;
mod changes;
mod entries;
mod fd_cache;
mod fd_path;
mod fuse;
pub mod nodes;
mod passthrough;
pub mod shares;
mod xattrs;
