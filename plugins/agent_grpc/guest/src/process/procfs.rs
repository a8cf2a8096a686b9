//! Processes and use of one container, as /proc and its cgroup tell them.

use std::fs;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use crate::error::Error;
use crate::proto::{ContainerStatsReply, ProcessInfo};

/// Bytes of one process's command that are told, and of all that fit into an answer.
const MOST_WORDS: u64 = 16 << 10;
const MOST_OF_ALL: usize = 256 << 10;
/// What a word takes beside its letters: the host takes no more than so many words
/// (vc_agent_grpc/checked_answers.py).
const WORD: usize = 4;

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
    let usage = cpu.lines().find_map(|line| line.strip_prefix("usage_usec ")).unwrap_or("0");
    let cpu_ns = usage.trim().parse::<u64>()? * 1000;
    if !folder.join("memory.current").exists() || !folder.join("pids.current").exists() {
        return added_up(container, cpu_ns);
    }
    Ok(ContainerStatsReply {
        cpu_ns,
        memory_bytes: number(&folder.join("memory.current"))?,
        memory_limit_bytes: number(&folder.join("memory.max"))?,
        processes: number(&folder.join("pids.current"))?,
        oom_kills: oom_kills(&folder)?,
    })
}

pub fn adjust_oom_score(pid: i32, adjustment: i64) -> Result<(), Error> {
    match fs::write(format!("/proc/{pid}/oom_score_adj"), adjustment.to_string()) {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()), // not found: it has ended already
    }
}

/// Kills whatever is in the container's cgroup, if there is one.
pub fn kill_all(container: &str) -> Result<(), Error> {
    match fs::write(cgroup(container).join("cgroup.kill"), "1") {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// A sandbox has the controllers that its host has to spare. Where they are missing, processes are
/// added up.
fn added_up(container: &str, cpu_ns: u64) -> Result<ContainerStatsReply, Error> {
    let found = processes(container)?;
    let memory_bytes = found.iter().map(|process| process.resident_bytes).sum();
    Ok(ContainerStatsReply {
        cpu_ns,
        memory_bytes,
        processes: found.len() as u64,
        ..Default::default()
    })
}

/// How many processes of a container its limit of memory had cost when a process began.
pub struct OomKills(Option<(PathBuf, u64)>);

impl OomKills {
    pub fn begin(container: &str) -> Self {
        let folder = cgroup(container);
        let count = oom_kills(&folder).unwrap_or_default(); // its cgroup is still to be made
        Self(Some((folder, count)))
    }

    /// For a process that is in no container.
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

/// The number in a cgroup file; "max" is 0, which says: none.
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

/// proc(5): fields of stat are counted after the command's closing parenthesis, where field 3
/// (state) follows.
fn describe(pid: i32) -> Result<ProcessInfo, Error> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let fields: Vec<&str> = stat
        .rsplit_once(')')
        .ok_or_else(|| Error::failed("no command in stat"))?
        .1
        .split_whitespace()
        .collect();
    let field = |number: usize| fields.get(number - 3).copied().unwrap_or("0");
    let ticks = field(14).parse::<u64>()? + field(15).parse::<u64>()?;
    let mut line = Vec::new();
    fs::File::open(format!("/proc/{pid}/cmdline"))?.take(MOST_WORDS).read_to_end(&mut line)?;
    let words = line.split(|byte| *byte == 0).filter(|word| !word.is_empty());
    let mut command: Vec<String> =
        words.map(|word| String::from_utf8_lossy(word).into_owned()).collect();
    if command.is_empty() {
        command.push(format!("[{}]", status_line(&status, "Name:")));
    }
    Ok(ProcessInfo {
        pid: last(status_line(&status, "NSpid:")).parse()?,
        parent_pid: field(4).parse().map(|parent| inner_pid(parent).unwrap_or(0))?,
        uid: status_line(&status, "Uid:").split_whitespace().nth(1).unwrap_or("0").parse()?,
        state: field(3).to_owned(),
        resident_bytes: field(24).parse::<u64>()? * 4096,
        cpu_ns: ticks * (1_000_000_000 / 100),
        command,
    })
}

/// A process's number inside its own pid namespace; 0 for the agent, which is outside all of them.
fn inner_pid(pid: i32) -> Option<i32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
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

/// Whether a process catches or ignores a signal.
pub fn minds(pid: i32, signal: i32) -> bool {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let has = |key| {
        u64::from_str_radix(status_line(&status, key), 16)
            .is_ok_and(|mask| mask >> (signal - 1) & 1 == 1)
    };
    has("SigCgt:") || has("SigIgn:")
}
