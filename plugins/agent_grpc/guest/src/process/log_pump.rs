//! A process whose output goes to a log, and to attached clients.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use tokio::sync::{mpsc, watch};

use crate::error::Error;
use crate::fd_stream::FdStream;
use crate::process::log::{Kind, Log};
use crate::process::streams::{Output, next_chunk};
use crate::proto::output_chunk::Stream;
use crate::proto::{OutputChunk, WaitReply};

/// The number of chunks that are kept for a slow client after the process has ended; only its
/// children produce more.
const LATE_CHUNKS: usize = 64;

#[derive(Clone)]
pub struct LogPump {
    viewer: Arc<Mutex<Option<mpsc::Sender<Output>>>>,
    done: watch::Receiver<bool>,
}

impl LogPump {
    /// Reads the streams until they and the process have ended.
    pub fn begin(
        log: Log,
        [stdout, stderr]: [Option<FdStream>; 2],
        ended: watch::Receiver<Option<WaitReply>>,
        is_followed: Arc<AtomicBool>,
    ) -> Self {
        let (sender, done) = watch::channel(false);
        let viewer = Arc::new(Mutex::new(None));
        let (seen, mut end) = (viewer.clone(), ended.clone());
        tokio::spawn(async move {
            tokio::join!(
                pump(stdout, ended.clone(), &log, Kind::Stdout, Stream::Stdout, &seen),
                pump(stderr, ended, &log, Kind::Stderr, Stream::Stderr, &seen),
            );
            let status = end
                .wait_for(Option::is_some)
                .await
                .ok()
                .and_then(|found| *found)
                .unwrap_or_default();
            let kind = if is_followed.load(Ordering::Relaxed) { Kind::Ended } else { Kind::Last };
            tell(log.append(kind, status.exit_code.to_le_bytes().to_vec()).await);
            seen.lock().take();
            sender.send_replace(true);
        });
        Self { viewer, done }
    }

    /// Sends the output from now on.
    pub fn attach(&self, sender: &mpsc::Sender<Output>) -> Result<(), Error> {
        let mut viewer = self.viewer.lock();
        if viewer.as_ref().is_some_and(|other| !other.is_closed()) {
            return Err(Error::StreamTaken("is attached to"));
        }
        if !*self.done.borrow() {
            *viewer = Some(sender.clone());
        }
        Ok(())
    }

    /// Returns when the log is complete.
    pub async fn done(&self) {
        // A writer that is gone writes no more.
        let _ = self.done.clone().wait_for(|is_done| *is_done).await;
    }
}

async fn pump(
    stream: Option<FdStream>,
    mut ended: watch::Receiver<Option<WaitReply>>,
    log: &Log,
    kind: Kind,
    wrap: fn(Vec<u8>) -> Stream,
    viewer: &Mutex<Option<mpsc::Sender<Output>>>,
) {
    let Some(mut stream) = stream else { return };
    let mut late = Vec::new();
    while let Some(data) = next_chunk(&mut stream, &mut ended).await {
        tell(log.append(kind, data.clone()).await);
        let sender = viewer.lock().clone();
        let Some(sender) = sender else { continue };
        let chunk = Ok(OutputChunk { stream: Some(wrap(data)) });
        if late.is_empty() {
            tokio::select! {
                biased;
                place = sender.reserve() => {
                    if let Ok(place) = place {
                        place.send(chunk); // the client has disconnected
                    }
                    continue;
                }
                _ = ended.wait_for(Option::is_some) => (),
            }
        }
        if late.len() < LATE_CHUNKS {
            late.push((sender, chunk));
        }
    }
    // A slow client still gets the rest, but neither the log nor the process's end waits for it.
    tokio::spawn(async move {
        for (sender, chunk) in late {
            let _ = sender.send(chunk).await; // as above
        }
    });
}

/// Reports to the console: a log that fails must not stop its process.
pub fn tell(outcome: Result<(), Error>) {
    if let Err(error) = outcome {
        eprintln!("vc-agent: a log cannot be written: {error}");
    }
}
