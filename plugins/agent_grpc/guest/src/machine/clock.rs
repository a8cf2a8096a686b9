//! The machine's clock.

use std::time::{SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};

use crate::error::Error;
use crate::machine::kind::Kind;

/// How far behind the clock may be: a smaller difference is the latency of a call.
const BEHIND_NS: i64 = 500_000_000;
const SECOND: i64 = 1_000_000_000;

pub fn set_time(since_epoch_ns: i64) -> Result<(), Error> {
    let time = TimeSpec::new(since_epoch_ns / SECOND, since_epoch_ns % SECOND);
    Ok(clock_settime(ClockId::CLOCK_REALTIME, time)?)
}

/// Sets the clock if it is behind, but never back: a call may have been delayed by a machine that
/// was frozen.
pub fn catch_up(kind: Kind, since_epoch_ns: i64) -> Result<(), Error> {
    if kind != Kind::Vm {
        return Ok(()); // the clock is the host's
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    if since_epoch_ns.saturating_sub(i64::try_from(now.as_nanos())?) > BEHIND_NS {
        set_time(since_epoch_ns)?;
    }
    Ok(())
}
