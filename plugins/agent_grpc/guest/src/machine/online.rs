//! The machine as a whole: name, clock, random numbers, processors and memory, its end.

use std::fs;
use std::io;
use std::os::fd::AsRawFd;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::time::TimeSpec;
use nix::time::{ClockId, clock_settime};
use nix::unistd::{sethostname, sync};

use crate::Failure;
use crate::machine::sandbox;
use crate::machine::uevents::{Uevents, until};

const CPUS: &str = "/sys/devices/system/cpu";
const MEMORY: &str = "/sys/devices/system/memory";
const ONLINE_LIMIT: Duration = Duration::from_secs(30);

pub fn set_hostname(name: &str) -> Result<(), Failure> {
    Ok(sethostname(name)?)
}

pub fn set_time(since_epoch_ns: i64) -> Result<(), Failure> {
    const SECOND: i64 = 1_000_000_000;
    Ok(clock_settime(
        ClockId::CLOCK_REALTIME,
        TimeSpec::new(since_epoch_ns / SECOND, since_epoch_ns % SECOND),
    )?)
}

/// How far behind the clock may be: less is what a call takes on its way.
const BEHIND_NS: i64 = 500_000_000;

/// Sets the clock if it is behind. Never back: a call may have waited on its way, for a machine
/// that was frozen.
pub fn catch_up(since_epoch_ns: i64) -> Result<(), Failure> {
    if sandbox::is_one() || std::process::id() != 1 {
        return Ok(()); // the clock is the host's
    }
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?;
    if since_epoch_ns.saturating_sub(i64::try_from(now.as_nanos())?) > BEHIND_NS {
        set_time(since_epoch_ns)?;
    }
    Ok(())
}

/// random(4): struct rand_pool_info is a count of bits, a size in bytes, and the bytes.
pub fn seed(bytes: &[u8]) -> Result<(), Failure> {
    nix::ioctl_write_ptr_bad!(add_entropy, 0x4008_5203, u8);
    nix::ioctl_none_bad!(reseed, 0x5207);
    let size = i32::try_from(bytes.len())?;
    let mut pool = (size * 8).to_ne_bytes().to_vec();
    pool.extend(size.to_ne_bytes());
    pool.extend(bytes);
    let device = fs::OpenOptions::new().write(true).open("/dev/urandom")?;
    // SAFETY: the pointer is to as many bytes as the pool's own header says.
    unsafe { add_entropy(device.as_raw_fd(), pool.as_ptr()) }?;
    // SAFETY: takes no argument.
    unsafe { reseed(device.as_raw_fd()) }?;
    Ok(())
}

/// What the machine had before anything was plugged.
static BLOCKS_AT_BOOT: LazyLock<u64> = LazyLock::new(online_blocks);

/// Plugged memory is for what can be moved, so that it can be given back.
pub fn prepare_for_memory() -> io::Result<()> {
    LazyLock::force(&BLOCKS_AT_BOOT);
    match fs::write(format!("{MEMORY}/auto_online_blocks"), "online_movable") {
        // a kernel without memory hot plug
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// Brings plugged memory and the first `vcpus` vCPUs online, takes the others offline; waits until
/// that many are there, and `plugged` bytes beyond those at boot. The number of vCPUs online, and
/// the memory in bytes.
pub async fn online(vcpus: usize, plugged: u64, events: &Uevents) -> Result<(usize, u64), Failure> {
    if sandbox::is_one() {
        // the host's own are all in use, and none of ours to switch off
        return Ok((vcpus, memory_bytes()?));
    }
    let block = block_bytes();
    let look = || {
        let present = set_vcpus(vcpus).ok()?;
        online_memory().ok()?;
        let more = online_blocks().saturating_sub(*BLOCKS_AT_BOOT) * block;
        (present >= vcpus && online_vcpus() == vcpus && more >= plugged).then_some(vcpus)
    };
    let what = format!("vCPU number {vcpus} with {} MiB of plugged memory", plugged >> 20);
    let count = until(events, ONLINE_LIMIT, &what, look).await?;
    Ok((count, memory_bytes()?))
}

/// How many vCPUs there are, of which no more than `count` are online afterwards.
fn set_vcpus(count: usize) -> io::Result<usize> {
    let mut numbers = numbered(CPUS, "cpu");
    numbers.sort_unstable();
    for (place, number) in numbers.iter().enumerate() {
        // The first one has no such file: it is always online.
        switch(
            &format!("{CPUS}/cpu{number}/online"),
            if place < count { ("0", "1") } else { ("1", "0") },
        )?;
    }
    Ok(numbers.len())
}

fn online_memory() -> io::Result<()> {
    for number in numbered(MEMORY, "memory") {
        switch(&format!("{MEMORY}/memory{number}/state"), ("offline", "online_movable"))?;
    }
    Ok(())
}

/// Numbers of a folder's entries that are called `prefix` and a number.
fn numbered(folder: &str, prefix: &str) -> Vec<u32> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix(prefix)?.parse().ok()).collect()
}

/// Writes the second word where the first stands.
fn switch(file: &str, (from, to): (&str, &str)) -> io::Result<()> {
    if fs::read_to_string(file).is_ok_and(|state| state.trim() == from) {
        fs::write(file, to)?;
    }
    Ok(())
}

fn online_blocks() -> u64 {
    let entries = fs::read_dir(MEMORY).into_iter().flatten().flatten();
    let states = entries.filter_map(|entry| fs::read_to_string(entry.path().join("state")).ok());
    states.filter(|state| state.trim() == "online").count() as u64
}

/// The size of a memory block, which the kernel writes in hexadecimal.
fn block_bytes() -> u64 {
    let text = fs::read_to_string(format!("{MEMORY}/block_size_bytes")).unwrap_or_default();
    u64::from_str_radix(text.trim(), 16).unwrap_or(0)
}

fn online_vcpus() -> usize {
    fs::read_to_string("/proc/stat").map_or(0, |text| {
        text.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count()
    })
}

fn memory_bytes() -> Result<u64, Failure> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .ok_or("meminfo has no MemTotal")?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}

pub fn power_off() -> Result<std::convert::Infallible, Failure> {
    sync();
    Ok(reboot(RebootMode::RB_POWER_OFF)?)
}

pub fn resize(terminal: &std::os::fd::OwnedFd, rows: u32, columns: u32) -> Result<(), Failure> {
    nix::ioctl_write_ptr_bad!(set_size, libc::TIOCSWINSZ, libc::winsize);
    let size = libc::winsize {
        ws_row: rows.try_into()?,
        ws_col: columns.try_into()?,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the pointer is to a winsize, which is what this request reads.
    unsafe { set_size(terminal.as_raw_fd(), &raw const size) }?;
    Ok(())
}

/// Programs of a pod reach each other by 127.0.0.1: netdevice(7).
pub fn raise_loopback() -> Result<(), Failure> {
    nix::ioctl_write_ptr_bad!(set_flags, libc::SIOCSIFFLAGS, libc::ifreq);
    let socket = std::net::UdpSocket::bind("0.0.0.0:0")?;
    // SAFETY: an ifreq is plain numbers, for which zeroes are good values.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (place, byte) in request.ifr_name.iter_mut().zip(b"lo") {
        *place = *byte as libc::c_char;
    }
    request.ifr_ifru.ifru_flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
    // SAFETY: the kernel reads one ifreq and keeps no pointer to it.
    unsafe { set_flags(socket.as_raw_fd(), &request) }?;
    Ok(())
}
