//! crun's command line, and nothing else that knows it.

use std::fmt;
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::Failure;
use crate::process::reaper::{Ended, Reaper};

const STATE: &str = "/run/vc/crun";
const PID: &str = "pid";
/// It works in files of the container, which may never answer. The host waits for a minute.
const LIMIT: Duration = Duration::from_secs(45);

pub struct Crun {
    reaper: Reaper,
    sealed: OnceLock<File>,
}

/// What a started process inherits.
pub struct Handles {
    pub stdin: Stdio,
    pub stdout: Stdio,
    pub stderr: Stdio,
}

impl Handles {
    pub fn null() -> Self {
        Self { stdin: Stdio::null(), stdout: Stdio::null(), stderr: Stdio::null() }
    }
}

impl Crun {
    pub fn new(reaper: Reaper) -> Self {
        Self { reaper, sealed: OnceLock::new() }
    }

    pub async fn warm_up(&self) -> Result<(), Failure> {
        fs::create_dir_all(STATE)?;
        self.run(Path::new(STATE), words(&["list"]), Handles::null()).await
    }

    /// A path of crun's program in memory that nobody can write to. A crun that finds itself
    /// elsewhere first makes such a copy and runs again from there, each time: CVE-2019-5736.
    fn program(&self) -> Result<String, Failure> {
        let file = match self.sealed.get() {
            Some(file) => file,
            None => {
                let found = search("crun").ok_or("crun is not on the PATH")?;
                let made = seal(&found)
                    .map_err(|error| format!("{} cannot be copied: {error}", found.display()))?;
                self.sealed.get_or_init(|| made)
            }
        };
        Ok(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Makes the container of `bundle` and lets it wait ("create") or not ("run"); the pid of its
    /// first process, a child of ours by now.
    pub async fn create(
        &self,
        verb: &str,
        id: &str,
        bundle: &Path,
        console: Option<&Path>,
        handles: Handles,
    ) -> Result<i32, Failure> {
        self.run(bundle, make_words(verb, id, bundle, console), handles).await?;
        first_pid(bundle)
    }

    pub async fn start(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        self.run(bundle, words(&["start", id]), Handles::null()).await
    }

    /// Starts the process described in `folder`/process.json; its pid.
    pub async fn exec(
        &self,
        id: &str,
        folder: &Path,
        console: Option<&Path>,
        handles: Handles,
    ) -> Result<i32, Failure> {
        let pid_file = folder.join(PID);
        let process = folder.join("process.json");
        let mut args = words(&[
            "exec",
            "--detach",
            "--process",
            &text(&process),
            "--pid-file",
            &text(&pid_file),
        ]);
        args.extend(console_socket(console));
        args.push(id.into());
        self.run(folder, args, handles).await?;
        read_pid(&pid_file)
    }

    pub async fn kill_all(&self, id: &str, bundle: &Path, signal: i32) -> Result<(), Failure> {
        self.run(bundle, words(&["kill", "--all", id, &signal.to_string()]), Handles::null()).await
    }

    pub async fn delete(&self, id: &str, bundle: &Path) -> Result<(), Failure> {
        self.run(bundle, words(&["delete", "--force", id]), Handles::null()).await
    }

    pub async fn update(&self, id: &str, bundle: &Path, resources: &Path) -> Result<(), Failure> {
        self.run(bundle, words(&["update", "--resources", &text(resources), id]), Handles::null())
            .await
    }

    async fn run(&self, folder: &Path, args: Vec<String>, handles: Handles) -> Result<(), Failure> {
        let mut running = self.begin(folder, args, handles)?;
        match timeout(LIMIT, running.end()).await {
            Ok(outcome) => outcome,
            Err(_) => Err(format!(
                "crun {} did not end within {} s and was killed",
                running.verb,
                LIMIT.as_secs()
            )
            .into()),
        }
    }

    /// Starts one that makes the container of `bundle` and lets it run.
    pub fn begin_run(&self, id: &str, bundle: &Path, handles: Handles) -> Result<Running, Failure> {
        self.begin(bundle, make_words("run", id, bundle, None), handles)
    }

    fn begin(
        &self,
        folder: &Path,
        args: Vec<String>,
        handles: Handles,
    ) -> Result<Running, Failure> {
        let log = folder.join("crun.log");
        let verb = args.first().cloned().unwrap_or_default();
        let child = Command::new(self.program()?)
            .arg0("crun")
            .args([
                "--root",
                STATE,
                "--cgroup-manager",
                "cgroupfs",
                "--log-format",
                "json",
                "--log",
                &text(&log),
            ])
            .args(args)
            .stdin(handles.stdin)
            .stdout(handles.stdout)
            .stderr(handles.stderr)
            .spawn()
            .map_err(|error| format!("crun cannot be run: {error}"))?;
        let pid = child.id().try_into()?;
        Ok(Running { verb, log, pid, ended: self.reaper.claim(pid) })
    }
}

/// A crun that has begun.
pub struct Running {
    verb: String,
    log: PathBuf,
    pid: i32,
    ended: oneshot::Receiver<Ended>,
}

impl Drop for Running {
    /// Whoever no longer waits leaves nothing behind: it may wait for a file system that never
    /// answers.
    fn drop(&mut self) {
        if matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            // not reaped yet: its number is nobody else's
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

impl Running {
    /// Returns when it has done its work, or why it has not.
    pub async fn end(&mut self) -> Result<(), Failure> {
        let (log, verb) = (&self.log, &self.verb);
        let ended = (&mut self.ended).await?;
        let told = last_error(log);
        drop(fs::remove_file(log)); // absent when crun had nothing to say
        match (ended.code, told) {
            (0, _) => Ok(()),
            (_, Some(message)) => Err(sorted(message)),
            (code, None) => Err(format!("crun {verb} ended with {code} and said nothing").into()),
        }
    }
}

/// What is wrong with the program of a process.
#[derive(Clone, Copy, Debug)]
pub enum Refusal {
    Missing,
    NotExecutable,
}

/// There is no process, because of its program.
#[derive(Debug)]
pub struct Refused {
    pub why: Refusal,
    message: String,
}

impl fmt::Display for Refused {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

/// crun tells of all failures in words alone.
fn sorted(message: String) -> Failure {
    let words = message.to_lowercase();
    let says = |known: &[&str]| known.iter().any(|word| words.contains(word));
    let is_about_program = says(&["executable", "exec ", "execv"]);
    let why = match () {
        () if is_about_program && says(&["not found", "no such file"]) => Refusal::Missing,
        () if is_about_program && says(&["permission denied", "exec format error"]) => {
            Refusal::NotExecutable
        }
        () => return message.into(),
    };
    Refused { why, message }.into()
}

fn make_words(verb: &str, id: &str, bundle: &Path, console: Option<&Path>) -> Vec<String> {
    let mut args =
        words(&[verb, "--bundle", &text(bundle), "--pid-file", &text(&bundle.join(PID))]);
    if verb == "run" {
        args.push("--detach".into());
    }
    args.extend(console_socket(console));
    args.push(id.into());
    args
}

/// The first process of a container that crun has made.
pub fn first_pid(bundle: &Path) -> Result<i32, Failure> {
    read_pid(&bundle.join(PID))
}

fn search(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|folder| folder.join(name)).find(|file| file.is_file())
}

fn seal(program: &Path) -> io::Result<File> {
    let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
    let mut copy = File::from(memfd_create(c"crun", flags)?);
    io::copy(&mut File::open(program)?, &mut copy)?;
    let seals = SealFlag::F_SEAL_SEAL
        | SealFlag::F_SEAL_SHRINK
        | SealFlag::F_SEAL_GROW
        | SealFlag::F_SEAL_WRITE;
    fcntl(&copy, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(copy)
}

fn last_error(log: &Path) -> Option<String> {
    let text = fs::read_to_string(log).ok()?;
    let line = text.lines().rev().find(|line| !line.trim().is_empty())?;
    let entry: serde_json::Value = serde_json::from_str(line).ok()?;
    entry.get("msg")?.as_str().map(str::to_owned)
}

fn console_socket(path: Option<&Path>) -> Vec<String> {
    path.map_or_else(Vec::new, |path| words(&["--console-socket", &text(path)]))
}

fn read_pid(file: &PathBuf) -> Result<i32, Failure> {
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}
