//! The end of the machine.

use std::convert::Infallible;

use nix::sys::reboot::{RebootMode, reboot};
use nix::unistd::sync;

use crate::error::Error;

pub fn power_off() -> Result<Infallible, Error> {
    sync();
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}
