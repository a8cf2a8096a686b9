//! The machine's clock.
//!
//! It stands still while the machine is stopped, and no event tells the guest so. The host sends its
//! time with each call. Between calls, what needs the time compares the clock with the machine's
//! real-time clock (RTC), which is the host's, but has whole seconds only.

use std::fs;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use parking_lot::Mutex;

use crate::error::Error;
use crate::machine::kind::Kind;

/// How far behind the clock may be: a smaller difference is the latency of a call.
const BEHIND_NS: i64 = 500_000_000;
const SECOND: i64 = 1_000_000_000;
const RTC: &str = "/sys/class/rtc/rtc0/since_epoch";
/// Reading the RTC takes the hypervisor some hundred microseconds.
const CHECK_EVERY: Duration = Duration::from_millis(250);
/// A smaller correction is not worth a step.
const STEP_NS: i64 = 100_000_000;

/// None if the clock is the host's, or there is no RTC.
static KEPT: Mutex<Option<Kept>> = Mutex::new(None);

struct Kept {
    phase: Phase,
    checked: Instant,
}

/// How much the clock is ahead of the RTC while both are right: up to one second, because the RTC
/// tells whole seconds, and up to another, because hypervisors set it to a whole second.
struct Phase {
    /// The largest difference so far.
    most_ns: i64,
}

impl Default for Phase {
    fn default() -> Self {
        Self { most_ns: SECOND }
    }
}

impl Phase {
    /// Returns how far the clock is behind at least, given the RTC's time, and the clock's before
    /// and after it was read. It is not positive for a clock that may be right.
    fn behind(&mut self, rtc_ns: i64, before_ns: i64, after_ns: i64) -> i64 {
        self.most_ns = self.most_ns.max(before_ns.saturating_sub(rtc_ns)).min(2 * SECOND);
        (self.most_ns - SECOND).saturating_sub(after_ns.saturating_sub(rtc_ns))
    }
}

impl Kept {
    fn check(&mut self) -> Result<(), Error> {
        let before_ns = unix_ns()?;
        let rtc_s: i64 =
            fs::read_to_string(RTC)?.trim().parse().map_err(|_| Error::failed("no number"))?;
        let after_ns = unix_ns()?;
        let behind_ns = self.phase.behind(rtc_s.saturating_mul(SECOND), before_ns, after_ns);
        if behind_ns > STEP_NS {
            set_time(after_ns + behind_ns)?;
        }
        self.checked = Instant::now();
        Ok(())
    }
}

/// Makes `now_ns` keep the clock.
pub fn keep(kind: Kind) {
    if kind == Kind::Vm {
        *KEPT.lock() = Some(Kept { phase: Phase::default(), checked: Instant::now() });
    }
}

/// Returns the time since the epoch; sets the clock first if it is behind.
pub fn now_ns() -> Result<i64, Error> {
    let mut kept = KEPT.lock();
    if let Some(clock) = kept.as_mut()
        && clock.checked.elapsed() >= CHECK_EVERY
        && let Err(error) = clock.check()
    {
        eprintln!("vc-agent: from now on only calls set the clock: {RTC}: {error}");
        *kept = None;
    }
    unix_ns()
}

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
    if since_epoch_ns.saturating_sub(unix_ns()?) > BEHIND_NS {
        set_time(since_epoch_ns)?;
    }
    if let Some(clock) = KEPT.lock().as_mut() {
        clock.checked = Instant::now(); // better than by the RTC
    }
    Ok(())
}

fn unix_ns() -> Result<i64, Error> {
    Ok(i64::try_from(SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: i64 = 1_700_000_000 * SECOND;
    const MS: i64 = 1_000_000;

    /// The RTC of a machine that was set this much too late.
    fn rtc(time_ns: i64, late_ns: i64) -> i64 {
        (time_ns - late_ns) / SECOND * SECOND
    }

    #[test]
    fn a_clock_that_is_right_is_let_be() {
        for late_ms in [0, 1, 500, 999] {
            for period_ms in [250, 333, 1000, 1001, 5000] {
                for latency_ms in [0, 3, 900, 5000] {
                    let mut phase = Phase::default();
                    for round in 0..2000 {
                        let time = EPOCH + round * period_ms * MS;
                        let told = rtc(time, late_ms * MS);
                        let (before, after) = (time - latency_ms * MS, time + latency_ms * MS);
                        assert!(phase.behind(told, before, after) <= 0, "{late_ms} {period_ms}");
                    }
                }
            }
        }
    }

    #[test]
    fn a_clock_that_stood_still_is_set_at_once_and_never_too_far() {
        for late_ms in [0, 400, 999] {
            for gap_ms in [2000, 3300, 1_000_000] {
                let mut phase = Phase::default();
                for round in 0..20 {
                    let time = EPOCH + round * 230 * MS;
                    phase.behind(rtc(time, late_ms * MS), time, time);
                }
                let mut missing = gap_ms * MS;
                for round in 20..40 {
                    let time = EPOCH + gap_ms * MS + round * 230 * MS;
                    let clock = time - missing;
                    missing -= phase.behind(rtc(time, late_ms * MS), clock, clock).max(0);
                    assert!((0..SECOND + 230 * MS).contains(&missing), "{late_ms} {gap_ms}");
                }
                assert!(missing < 500 * MS, "it comes nearer: {missing}");
            }
        }
    }

    #[test]
    fn a_clock_that_was_never_compared_is_set_to_the_seconds_of_the_rtc() {
        assert_eq!(
            Phase::default().behind(EPOCH, EPOCH - 7 * SECOND, EPOCH - 7 * SECOND),
            7 * SECOND
        );
        assert!(Phase::default().behind(EPOCH, EPOCH + MS, EPOCH + MS) <= 0);
    }
}
