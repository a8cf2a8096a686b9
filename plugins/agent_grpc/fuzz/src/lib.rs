//! What the agent reads of others: each module's `check` takes any bytes, and panics when the agent
//! does, or when its result breaks a promise.

pub mod archives;
pub mod crun;
pub mod nodes;
pub mod requests;
pub mod stats;
pub mod users;
