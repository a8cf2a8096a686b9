//! Processes and resource use of one container, from /proc and its cgroup.

use std::fs;
use std::io::{self, ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::proto::{ContainerStatsReply, ProcessInfo};

/// Limits in bytes for the command line of one process, and for all of one answer.
const MOST_WORDS: u64 = 16 << 10;
const MOST_OF_ALL: usize = 256 << 10;
/// The cost of a word besides its letters: the host limits the number of
/// words (vc_agent_grpc/checked_answers.py).
const WORD: usize = 4;
const PAGE: u64 = 4096;
/// The kernel reports time in hundredths of a second here, with any tick rate.
const TICK_NS: u64 = 1_000_000_000 / 100;

pub fn cgroup(container: &str) -> PathBuf {
    Path::new("/sys/fs/cgroup/vc").join(container)
}

pub fn processes(container: &str) -> Result<Vec<ProcessInfo>, Error> {
    let mut pids = Vec::new();
    collect_pids(&cgroup(container), &mut pids)?;
    // A process may end between being listed and being read.
    let mut found: Vec<ProcessInfo> =
        pids.into_iter().filter_map(|pid| describe(pid).ok()).collect();
    let mut room = MOST_OF_ALL;
    for process in &mut found {
        let bytes: usize = process.command.iter().map(|word| word.len() + WORD).sum();
        match room.checked_sub(bytes) {
            Some(left) => room = left,
            None => process.command = vec!["[...]".to_owned()],
        }
    }
    Ok(found)
}

pub fn stats(container: &str) -> Result<ContainerStatsReply, Error> {
    let folder = cgroup(container);
    let cpu = fs::read_to_string(folder.join("cpu.stat"))?;
    let times = ContainerStatsReply {
        cpu_ns: time_ns(&cpu, "usage_usec ")?,
        user_cpu_ns: time_ns(&cpu, "user_usec ")?,
        system_cpu_ns: time_ns(&cpu, "system_usec ")?,
        ..Default::default()
    };
    if !folder.join("memory.current").exists() || !folder.join("pids.current").exists() {
        return added_up(container, times);
    }
    Ok(ContainerStatsReply {
        memory_bytes: number(&folder.join("memory.current"))?,
        memory_limit_bytes: number(&folder.join("memory.max"))?,
        processes: number(&folder.join("pids.current"))?,
        oom_kills: oom_kills(&folder)?,
        ..times
    })
}

/// A time of `cpu.stat`, which has it in microseconds; 0 for one that is not there.
fn time_ns(cpu: &str, name: &str) -> Result<u64, Error> {
    let value = cpu.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
    Ok(value.trim().parse::<u64>()?.saturating_mul(1000))
}

pub fn adjust_oom_score(pid: i32, adjustment: i64) -> Result<(), Error> {
    match fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()), // not found: it has ended already
    }
}

/// Kills everything in the container's cgroup, if there is one.
pub fn kill_all(container: &str) -> Result<(), Error> {
    match fs::write(cgroup(container).join("cgroup.kill"), "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A sandbox has only the controllers that its host delegates. Where they are missing, the values
/// of the processes are summed.
fn added_up(container: &str, times: ContainerStatsReply) -> Result<ContainerStatsReply, Error> {
    let found = processes(container)?;
    let memory_bytes = found.iter().map(|process| process.resident_bytes).sum();
    Ok(ContainerStatsReply { memory_bytes, processes: found.len() as u64, ..times })
}

/// The number of a container's processes killed at its memory limit when a process began.
pub struct OomKills(Option<(PathBuf, u64)>);

impl OomKills {
    pub fn begin(container: &str) -> Self {
        let folder = cgroup(container);
        let count = oom_kills(&folder).unwrap_or_default(); // its cgroup does not exist yet
        Self(Some((folder, count)))
    }

    /// For a process outside of containers.
    pub fn nowhere() -> Self {
        Self(None)
    }

    pub fn has_more(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|(folder, count)| oom_kills(folder).is_ok_and(|now| now > *count))
    }
}

fn oom_kills(folder: &Path) -> Result<u64, Error> {
    let events = fs::read_to_string(folder.join("memory.events"))?;
    let count = events.lines().find_map(|line| line.strip_prefix("oom_kill ")).unwrap_or("0");
    Ok(count.trim().parse()?)
}

/// Returns the number in a cgroup file; 0 for "max".
fn number(file: &Path) -> Result<u64, Error> {
    match fs::read_to_string(file)?.trim() {
        "max" => Ok(0),
        text => Ok(text.parse()?),
    }
}

fn collect_pids(folder: &Path, pids: &mut Vec<i32>) -> Result<(), Error> {
    for line in fs::read_to_string(folder.join("cgroup.procs"))?.lines() {
        pids.push(line.parse()?);
    }
    for entry in fs::read_dir(folder)?.flatten() {
        if entry.file_type()?.is_dir() {
            collect_pids(&entry.path(), pids)?;
        }
    }
    Ok(())
}

/// Reads a file of a process, whose names may contain any bytes.
fn read_lossy(pid: i32, name: &str) -> io::Result<String> {
    let bytes = fs::read(format!("/proc/{pid}/{name}"))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// Values from the stat file of a process.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Stat {
    pub state: String,
    pub parent_pid: i32,
    pub ticks: u64,
    pub resident_pages: u64,
}

impl Stat {
    /// proc(5): fields are counted from the command's closing parenthesis, behind which field 3
    /// (state) follows. The command may contain parentheses.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let (_, behind) =
            text.rsplit_once(')').ok_or_else(|| Error::failed("no command in stat"))?;
        let fields: Vec<&str> = behind.split_whitespace().collect();
        let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
        Ok(Self {
            state: field(3).to_owned(),
            parent_pid: field(4).parse()?,
            ticks: field(14).parse::<u64>()?.saturating_add(field(15).parse()?),
            resident_pages: field(24).parse()?,
        })
    }
}

/// The words of a command line, which are separated by zero bytes.
fn words(line: &[u8]) -> Vec<String> {
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    words.map(|word| String::from_utf8_lossy(word).into_owned()).collect()
}

fn describe(pid: i32) -> Result<ProcessInfo, Error> {
    let stat = Stat::parse(&read_lossy(pid, "stat")?)?;
    let status = read_lossy(pid, "status")?;
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))?.take(MOST_WORDS).read_to_end(&mut line)?;
    let mut command = words(&line);
    if command.is_empty() {
        command.push(format!("[{}]", status_line(&status, "Name:")));
    }
    Ok(ProcessInfo {
        pid: last(status_line(&status, "NSpid:")).parse()?,
        parent_pid: inner_pid(stat.parent_pid).unwrap_or(0),
        uid: status_line(&status, "Uid:").split_whitespace().nth(1).unwrap_or("0").parse()?,
        state: stat.state,
        resident_bytes: stat.resident_pages.saturating_mul(PAGE),
        cpu_ns: stat.ticks.saturating_mul(TICK_NS),
        command,
    })
}

/// A process's number inside its own pid namespace; 0 for the agent, which is outside all of them.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = read_lossy(pid, "status").ok()?;
    let numbers = status_line(&status, "NSpid:");
    (numbers.split_whitespace().count() > 1).then(|| last(numbers).parse().ok())?
}

fn status_line<'a>(status: &'a str, key: &str) -> &'a str {
    status.lines().find_map(|line| line.strip_prefix(key)).unwrap_or("").trim()
}

fn last(words: &str) -> &str {
    words.split_whitespace().last().unwrap_or("0")
}

pub fn is_namespace_init(pid: i32) -> bool {
    inner_pid(pid) == Some(1)
}

/// Returns whether a process catches or ignores a signal.
pub fn minds(pid: i32, signal: i32) -> bool {
    let status = read_lossy(pid, "status").unwrap_or_default();
    let has = |key| {
        u64::from_str_radix(status_line(&status, key), 16)
            .is_ok_and(|mask| mask >> (signal - 1) & 1 == 1)
    };
    has("SigCgt:") || has("SigIgn:")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_may_contain_what_stat_is_written_with() {
        let rest = "S 7 1 1 0 -1 0 0 0 0 0 30 12 0 0 20 0 1 0 5 9000 250 0";
        for name in ["sh", "a) R 1 (b", ") ", "x\u{fffd}y"] {
            let stat = Stat::parse(&format!("12 ({name}) {rest}")).unwrap();
            let expected =
                Stat { state: "S".into(), parent_pid: 7, ticks: 42, resident_pages: 250 };
            assert_eq!(stat, expected, "{name:?}");
        }
    }

    #[test]
    fn what_is_no_stat_is_an_error() {
        for text in ["", "12 (sh", "12 (sh) S", "12 (sh) S x", "12 (sh) S 99999999999 0"] {
            let parsed = Stat::parse(text);
            assert!(parsed.is_err() || text == "12 (sh) S", "{text:?}: {parsed:?}");
        }
    }

    #[test]
    fn a_process_with_any_name_is_described() {
        // SAFETY: a string that outlives the call, and a call without arguments.
        let thread = unsafe {
            libc::prctl(libc::PR_SET_NAME, c"\xff)\n\xc3".as_ptr());
            libc::gettid()
        };
        let described = describe(thread).unwrap();
        assert_eq!(described.parent_pid, 0);
        assert!(described.resident_bytes > 0);
        // SAFETY: takes numbers; a signal that is ignored has no handler.
        unsafe { libc::signal(libc::SIGUSR2, libc::SIG_IGN) };
        assert!(minds(thread, libc::SIGUSR2));
        assert!(!minds(thread, libc::SIGUSR1));
    }

    #[test]
    fn words_of_a_command_are_what_lies_between_zero_bytes() {
        assert_eq!(words(b"sh\0-c\0\0\xff\0"), ["sh", "-c", "\u{fffd}"]);
        assert!(words(b"\0\0").is_empty());
    }
}
