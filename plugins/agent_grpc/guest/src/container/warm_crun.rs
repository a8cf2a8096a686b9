//! A crun that was started in advance and waits for the container that it is to run. In an emulated
//! machine, starting the program is a third of the cost of a first container. Therefore a template
//! has one, and each of its clones finds it there.

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::container::crun::{Crun, Running, first_pid};
use crate::error::Error;
use crate::process::streams::{Streams, pipes};

/// The id of its container for crun.
pub const ID: &str = "_warm"; // no id of a container begins so
const FOLDER: &str = "/run/vc/warm";
const CONFIG: &str = "config.json";

pub struct WarmCrun {
    crun: Running,
    config: File,
    streams: Streams,
}

impl WarmCrun {
    /// Returns when crun waits, which it does by reading its config from a pipe.
    pub async fn begin(crun: &Crun) -> Result<Self, Error> {
        let folder = Path::new(FOLDER);
        fs::create_dir_all(folder)?;
        let pipe = folder.join(CONFIG);
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let (handles, streams) = pipes()?;
        let mut crun = crun.begin_run(ID, folder, handles)?;
        let path = pipe.clone();
        let mut opening =
            tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path));
        tokio::select! {
            config = &mut opening => Ok(Self { crun, config: config??, streams }),
            ended = crun.end() => {
                // A reader of the pipe must not block the open.
                let flags = OFlag::O_NONBLOCK.bits();
                drop(OpenOptions::new().read(true).custom_flags(flags).open(&pipe)?);
                drop(opening.await);
                fs::remove_dir_all(folder)?;
                let early = || Error::failed("crun has not waited for its config");
                Err(ended.err().unwrap_or_else(early))
            }
        }
    }

    /// Runs a container; returns its first process and the streams. `None`: crun does not wait
    /// any more.
    pub async fn run(mut self, config: &[u8]) -> Result<Option<(i32, Streams)>, Error> {
        let folder = Path::new(FOLDER);
        // The pipe is open already; a second read of the config finds a file in its place.
        fs::write(folder.join("file"), config)?;
        fs::rename(folder.join("file"), folder.join(CONFIG))?;
        let written = self.config.write_all(config);
        drop(self.config);
        let outcome = match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.crun.end().await.and_then(|()| Ok(Some((first_pid(folder)?, self.streams))))
            }
        };
        fs::remove_dir_all(folder)?;
        outcome
    }
}
