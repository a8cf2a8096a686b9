//! Processors and memory that the host plugs into the machine.

use std::fs;
use std::io;
use std::time::Duration;

use crate::error::Error;
use crate::machine::uevents::{Uevents, until};

const CPUS: &str = "/sys/devices/system/cpu";
const MEMORY: &str = "/sys/devices/system/memory";
const ONLINE_LIMIT: Duration = Duration::from_secs(30);

/// Plugged memory is used for movable pages, so that it can be unplugged.
pub fn prepare_for_memory() -> io::Result<()> {
    match fs::write(format!("{MEMORY}/auto_online_blocks"), "online_movable") {
        // a kernel without memory hot plug
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        outcome => outcome,
    }
}

/// The machine's resources before anything was plugged.
pub struct Hotplug {
    blocks_at_boot: u64,
}

impl Hotplug {
    pub fn at_boot() -> Self {
        Self { blocks_at_boot: online_blocks() }
    }

    /// Brings plugged memory and the first `vcpus` vCPUs online, takes the others offline; waits
    /// until that many exist, and `plugged` bytes beyond those at boot.
    pub async fn online(&self, vcpus: usize, plugged: u64, events: &Uevents) -> Result<(), Error> {
        let block = block_bytes();
        let look = || {
            let present = set_vcpus(vcpus).ok()?;
            online_memory().ok()?;
            let more = online_blocks().saturating_sub(self.blocks_at_boot) * block;
            (present >= vcpus && online_vcpus() == vcpus && more >= plugged).then_some(())
        };
        let what = format!("vCPU number {vcpus} with {} MiB of plugged memory", plugged >> 20);
        until(events, ONLINE_LIMIT, &what, look).await
    }
}

/// Returns the number of vCPUs, of which at most `count` are online afterwards.
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

/// Returns the numbers of a folder's entries named `prefix` and a number.
fn numbered(folder: &str, prefix: &str) -> Vec<u32> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    names.filter_map(|name| name.to_str()?.strip_prefix(prefix)?.parse().ok()).collect()
}

/// Writes the second word if the file contains the first.
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

/// Returns the memory that the kernel uses, in bytes.
pub fn memory_bytes() -> Result<u64, Error> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .ok_or_else(|| Error::failed("meminfo has no MemTotal"))?;
    let kib: u64 = line.trim().trim_end_matches("kB").trim().parse()?;
    Ok(kib << 10)
}
