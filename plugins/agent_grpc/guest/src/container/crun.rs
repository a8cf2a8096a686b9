//! The command line of crun. No other module depends on it.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use nix::fcntl::{FcntlArg, OFlag, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tokio::sync::oneshot;
use tokio::time::timeout;

use crate::container::crun_error::{error_of, last_message};
use crate::error::Error;
use crate::process::reaper::{Ended, Reaper};
use crate::process::streams::Handles;

const STATE: &str = "/run/vc/crun";
const PID: &str = "pid";
/// The pipe in the state of a container that crun has created.
const WAITS: &str = "exec.fifo";
/// crun accesses files of the container, which may never respond. The host waits for a minute.
const LIMIT: Duration = Duration::from_secs(45);

/// How crun begins a container.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verb {
    /// Its process runs.
    Run,
    /// Its process waits for `Crun::start`.
    Create,
}

pub struct Crun {
    pub reaper: Reaper,
    sealed: OnceLock<File>,
}

impl Crun {
    pub fn new(reaper: Reaper) -> Self {
        Self { reaper, sealed: OnceLock::new() }
    }

    pub async fn warm_up(&self) -> Result<(), Error> {
        fs::create_dir_all(STATE)?;
        self.run(Path::new(STATE), words(&["list"]), Handles::null()).await
    }

    /// Returns a path of crun's program in write-protected memory. A crun in any other place first
    /// makes such a copy and executes that, each time: CVE-2019-5736.
    fn program(&self) -> Result<String, Error> {
        let file = match self.sealed.get() {
            Some(file) => file,
            None => {
                let found =
                    search("crun").ok_or_else(|| Error::failed("crun is not on the PATH"))?;
                let made = seal(&found)
                    .map_err(Error::context(format!("{} cannot be copied", found.display())))?;
                self.sealed.get_or_init(|| made)
            }
        };
        Ok(format!("/proc/self/fd/{}", file.as_raw_fd()))
    }

    /// Begins the container of `bundle`. Returns the pid of its first process, which is a child of
    /// the agent by then.
    pub async fn create(
        &self,
        verb: Verb,
        id: &str,
        bundle: &Path,
        console: Option<PathBuf>,
        handles: Handles,
    ) -> Result<i32, Error> {
        self.run(bundle, make_words(verb, id, bundle, console), handles).await?;
        first_pid(bundle)
    }

    /// Starts the waiting process of a container. Another crun would only write to the same pipe,
    /// and takes a hundred times as long to be loaded. It is asked when nothing waits there, as it
    /// says why.
    pub async fn start(&self, id: &str, bundle: &Path) -> Result<(), Error> {
        if release(&Path::new(STATE).join(id).join(WAITS))? {
            return Ok(());
        }
        self.run(bundle, words(&["start", id]), Handles::null()).await
    }

    /// Starts the process described in `folder`/process.json; returns its pid.
    pub async fn exec(
        &self,
        id: &str,
        folder: &Path,
        console: Option<PathBuf>,
        handles: Handles,
    ) -> Result<i32, Error> {
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

    pub async fn kill_all(&self, id: &str, bundle: &Path, signal: i32) -> Result<(), Error> {
        self.run(bundle, words(&["kill", "--all", id, &signal.to_string()]), Handles::null()).await
    }

    pub async fn delete(&self, id: &str, bundle: &Path) -> Result<(), Error> {
        self.run(bundle, words(&["delete", "--force", id]), Handles::null()).await
    }

    pub async fn update(&self, id: &str, bundle: &Path, resources: &Path) -> Result<(), Error> {
        self.run(bundle, words(&["update", "--resources", &text(resources), id]), Handles::null())
            .await
    }

    async fn run(&self, folder: &Path, args: Vec<String>, handles: Handles) -> Result<(), Error> {
        let mut running = self.begin(folder, args, handles)?;
        match timeout(LIMIT, running.end()).await {
            Ok(outcome) => outcome,
            Err(_) => {
                let what = format!("crun {} was killed: it did not end", running.verb);
                Err(Error::Timeout { what, seconds: LIMIT.as_secs() })
            }
        }
    }

    /// Starts a crun that begins the container of `bundle`.
    pub fn begin_container(
        &self,
        verb: Verb,
        id: &str,
        bundle: &Path,
        handles: Handles,
    ) -> Result<Running, Error> {
        self.begin(bundle, make_words(verb, id, bundle, None), handles)
    }

    fn begin(&self, folder: &Path, args: Vec<String>, handles: Handles) -> Result<Running, Error> {
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
            .map_err(Error::context("crun cannot be run"))?;
        let pid = child.id().try_into()?;
        Ok(Running { verb, log, pid, ended: self.reaper.claim(pid) })
    }
}

/// A crun that was started.
pub struct Running {
    verb: String,
    log: PathBuf,
    pid: i32,
    ended: oneshot::Receiver<Ended>,
}

impl Drop for Running {
    /// Kills a crun that is not waited for any more: it may wait for a file system that
    /// never responds.
    fn drop(&mut self) {
        if matches!(self.ended.try_recv(), Err(oneshot::error::TryRecvError::Empty)) {
            // Not reaped yet, so its pid is not reused.
            let _ = kill(Pid::from_raw(self.pid), Signal::SIGKILL);
        }
    }
}

impl Running {
    /// Returns when crun has finished; an error contains its message.
    pub async fn end(&mut self) -> Result<(), Error> {
        let (log, verb) = (&self.log, &self.verb);
        let ended = (&mut self.ended).await?;
        let message = fs::read_to_string(log).ok().and_then(|text| last_message(&text));
        drop(fs::remove_file(log)); // missing when crun has logged nothing
        match (ended.code, message) {
            (0, _) => Ok(()),
            (_, Some(message)) => Err(error_of(message)),
            (code, None) => {
                Err(Error::Crun(format!("crun {verb} ended with {code} and said nothing")))
            }
        }
    }
}

fn make_words(verb: Verb, id: &str, bundle: &Path, console: Option<PathBuf>) -> Vec<String> {
    let mut args = match verb {
        Verb::Run => words(&["run", "--detach"]),
        Verb::Create => words(&["create"]),
    };
    args.extend(words(&["--bundle", &text(bundle), "--pid-file", &text(&bundle.join(PID))]));
    args.extend(console_socket(console));
    args.push(id.into());
    args
}

/// Lets the process go on that waits for a byte from a pipe. Returns whether one waits.
fn release(pipe: &Path) -> io::Result<bool> {
    let opened = OpenOptions::new().write(true).custom_flags(OFlag::O_NONBLOCK.bits()).open(pipe);
    let Ok(mut opened) = opened else { return Ok(false) };
    // Who removes it starts the process: it is done once.
    if fs::remove_file(pipe).is_err() {
        return Ok(false);
    }
    opened.write_all(&[0])?;
    Ok(true)
}

/// Returns the first process of a container that crun has created.
pub fn first_pid(bundle: &Path) -> Result<i32, Error> {
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

fn console_socket(path: Option<PathBuf>) -> Vec<String> {
    path.map_or_else(Vec::new, |path| words(&["--console-socket", &text(&path)]))
}

fn read_pid(file: &PathBuf) -> Result<i32, Error> {
    Ok(fs::read_to_string(file)?.trim().parse()?)
}

fn words(args: &[&str]) -> Vec<String> {
    args.iter().map(|word| (*word).to_owned()).collect()
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use nix::sys::stat::Mode;
    use nix::unistd::mkfifo;

    use super::*;

    #[test]
    fn a_process_that_waits_is_released_once() {
        let folder = tempfile::tempdir().unwrap();
        let pipe = folder.path().join(WAITS);
        assert!(!release(&pipe).unwrap(), "there is no pipe");
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR).unwrap();
        assert!(!release(&pipe).unwrap(), "nothing waits");
        let flags = OFlag::O_NONBLOCK.bits();
        let mut waits = OpenOptions::new().read(true).custom_flags(flags).open(&pipe).unwrap();
        assert!(release(&pipe).unwrap());
        assert_eq!(waits.read(&mut [0; 4]).unwrap(), 1);
        assert!(!release(&pipe).unwrap(), "it goes on already");
    }
}
