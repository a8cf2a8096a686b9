//! Cruns that were started in advance, each waiting for the container that it is to make. In an
//! emulated machine, starting the program is a third of the cost of a first container. Therefore a
//! template has one for each verb, and each of its clones finds them there.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use nix::fcntl::OFlag;
use nix::sys::stat::Mode;
use nix::unistd::mkfifo;
use tokio::sync::Mutex;

use crate::container::crun::{Crun, Running, Verb, first_pid};
use crate::error::Error;
use crate::process::streams::{Streams, pipes};

const ID: &str = "_warm"; // no id of a container begins so
const FOLDER: &str = "/run/vc/warm";
const CONFIG: &str = "config.json";

/// At most one crun for each verb.
#[derive(Default)]
pub struct WarmCruns {
    waiting: Mutex<HashMap<Verb, WarmCrun>>,
    begun: AtomicU64,
}

impl WarmCruns {
    /// Returns when a crun waits.
    pub async fn prepare(&self, crun: &Crun, verb: Verb) -> Result<(), Error> {
        let mut waiting = self.waiting.lock().await;
        if let Entry::Vacant(place) = waiting.entry(verb) {
            let id = format!("{ID}{}", self.begun.fetch_add(1, Ordering::Relaxed));
            place.insert(WarmCrun::begin(crun, verb, id).await?);
        }
        Ok(())
    }

    /// Returns the one that waits. `None` also while one is being started.
    pub fn take(&self, verb: Verb) -> Option<WarmCrun> {
        self.waiting.try_lock().ok()?.remove(&verb)
    }
}

pub struct WarmCrun {
    /// The id of its container for crun.
    pub id: String,
    crun: Running,
    config: File,
    streams: Streams,
}

impl WarmCrun {
    fn folder(id: &str) -> PathBuf {
        Path::new(FOLDER).join(id)
    }

    /// Returns when crun waits, which it does by reading its config from a pipe.
    async fn begin(crun: &Crun, verb: Verb, id: String) -> Result<Self, Error> {
        let folder = Self::folder(&id);
        fs::create_dir_all(&folder)?;
        let pipe = folder.join(CONFIG);
        mkfifo(&pipe, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let (handles, streams) = pipes()?;
        let mut crun = crun.begin_container(verb, &id, &folder, handles)?;
        let path = pipe.clone();
        let mut opening =
            tokio::task::spawn_blocking(move || OpenOptions::new().write(true).open(path));
        tokio::select! {
            config = &mut opening => Ok(Self { id, crun, config: config??, streams }),
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

    /// Makes the container; returns its first process and the streams. `None`: crun does not wait
    /// any more.
    pub async fn make(mut self, config: &[u8]) -> Result<Option<(i32, Streams)>, Error> {
        let folder = Self::folder(&self.id);
        // The pipe is open already; a second read of the config finds a file in its place.
        fs::write(folder.join("file"), config)?;
        fs::rename(folder.join("file"), folder.join(CONFIG))?;
        let written = self.config.write_all(config);
        drop(self.config);
        let outcome = match written {
            Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(None),
            Err(error) => Err(error.into()),
            Ok(()) => {
                self.crun.end().await.and_then(|()| Ok(Some((first_pid(&folder)?, self.streams))))
            }
        };
        fs::remove_dir_all(folder)?;
        outcome
    }
}
