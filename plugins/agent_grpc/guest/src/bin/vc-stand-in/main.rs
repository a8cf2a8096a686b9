//! vc-stand-in: a process of the host that stands in for a process of a guest.
//!
//! Usage: `vc-stand-in SOCKET CONTAINER TOKEN process|machine [--listener N --dial-socket SOCKET]
//! [--memory-group FOLDER] [--starter M]`, where SOCKET is a channel of the machine that only this process uses;
//! or `vc-stand-in --options`, which prints the names of these options, one a line.
//! Descriptors 0 to 2 are the standard streams of the process in the guest; a terminal on 0 is in
//! raw mode already and only passes bytes. Descriptor 3 gets "ok" as soon as the streams are
//! connected, or else the reason why they are not.
//!
//! It exits with the code of the process, or with 137 when the machine ends first. All signals
//! that can be caught are forwarded. When it is killed, the agent kills the process. With
//! `machine`, the machine ends with it, however it has ended. N is the number of a listening socket:
//! what nft redirects to it is forwarded to the same port of the machine, by a channel of its own.
//! FOLDER is the container's control group of memory: if the guest's kernel kills the process at its
//! limit of memory, this program is killed in the same way there. M is the number of
//! a listening Unix socket: who connects to it as the same user has the container started.

mod agent;
mod forward;
mod oom;
mod signals;
mod starter;
mod stdio;

use std::fs::File;
use std::io::Write;
use std::os::fd::FromRawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use tonic::{Status, Streaming};
use vc_agent::proto::output_chunk::Stream;
use vc_agent::proto::{Empty, HoldRequest, OutputChunk, ProcessRequest};

use crate::agent::Client;
use crate::signals::Signals;
use crate::stdio::{Input, Output};

const REPORT: i32 = 3;
/// How long the agent may take to connect the streams; it may be the guest's, and silent.
const CONNECT: Duration = Duration::from_secs(60);
/// As if the process had been killed, which it was, with its machine.
const MACHINE_ENDED: i32 = 128 + libc::SIGKILL;

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> ExitCode {
    if std::env::args().skip(1).eq(["--options"]) {
        println!("{}", OPTIONS.join("\n"));
        return ExitCode::SUCCESS;
    }
    // SAFETY: the descriptor is this program's to own, by its interface.
    let mut report = unsafe { File::from_raw_fd(REPORT) };
    let error = match stand_in(&mut report) {
        // A thread may be reading stdin: it is not waited for.
        Ok(code) => std::process::exit(code),
        Err(error) => error,
    };
    // Nobody may read the report any more.
    let _ = report.write_all(format!("the stand-in is not connected: {error}").as_bytes());
    ExitCode::FAILURE
}

/// Returns the exit code, or why the streams are not connected.
fn stand_in(report: &mut File) -> Result<i32, Failure> {
    // First, so that all threads inherit the mask.
    let signals = Signals::block()?;
    stdio::save_memory();
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_io().enable_time().build()?;
    runtime.block_on(async {
        let attached = attached(std::env::args().skip(1).collect()).await?;
        report.write_all(b"ok")?;
        // Its other side sees the end of the report.
        *report = File::open("/dev/null")?;
        Ok(attached.until_the_end(signals).await)
    })
}

async fn attached(words: Vec<String>) -> Result<Attached, Failure> {
    tokio::time::timeout(CONNECT, Attached::new(words))
        .await
        .map_err(|_| format!("the guest's agent does not answer within {CONNECT:?}"))?
}

const OPTIONS: [&str; 4] = ["--listener", "--dial-socket", "--memory-group", "--starter"];

/// The words of the command line.
struct Asked {
    /// Socket, container, token, and what ends with this program.
    place: [String; 4],
    listener: Option<i32>,
    dial_socket: Option<String>,
    memory_group: Option<PathBuf>,
    starter: Option<i32>,
}

impl Asked {
    fn read(words: Vec<String>) -> Result<Self, Failure> {
        let (place, mut more) = words.split_first_chunk().ok_or("four words are needed")?;
        let mut asked = Self {
            place: place.clone(),
            listener: None,
            dial_socket: None,
            memory_group: None,
            starter: None,
        };
        while let [name, value, rest @ ..] = more {
            match name.as_str() {
                "--listener" => asked.listener = Some(value.parse()?),
                "--dial-socket" => asked.dial_socket = Some(value.clone()),
                "--starter" => asked.starter = Some(value.parse()?),
                "--memory-group" => asked.memory_group = Some(value.into()),
                _ => return Err(format!("{name} is no option").into()),
            }
            more = rest;
        }
        if more.is_empty() { Ok(asked) } else { Err("an option has no value".into()) }
    }
}

/// A process whose streams are connected.
struct Attached {
    client: Client,
    process: ProcessRequest,
    output: Streaming<OutputChunk>,
    memory_group: Option<PathBuf>,
    /// The process lives as long as this call.
    _hold: Streaming<Empty>,
}

impl Attached {
    async fn new(words: Vec<String>) -> Result<Self, Failure> {
        let asked = Asked::read(words)?;
        let [socket, container_id, token, ends] = asked.place;
        let ends_machine = ends == "machine";
        let process = ProcessRequest { container_id, token };
        let mut client = agent::connect(&socket, &agent::OF_A_PROCESS).await?;
        let ProcessRequest { container_id, token } = process.clone();
        let held = HoldRequest { container_id, token, ends_machine };
        let mut hold = client.hold(held).await?.into_inner();
        let mut output = client.read_output(process.clone()).await?.into_inner();
        // The first messages say that the calls were accepted.
        if hold.message().await?.is_none() || output.message().await?.is_none() {
            return Err("the guest's agent has accepted no client of the process".into());
        }
        if let (Some(listener), Some(socket)) = (asked.listener, asked.dial_socket) {
            forward::begin(listener, socket)?;
        }
        if let Some(descriptor) = asked.starter {
            starter::begin(descriptor, client.clone(), &process.container_id)?;
        }
        Ok(Self { client, process, output, memory_group: asked.memory_group, _hold: hold })
    }

    /// Carries streams and signals; returns the exit code.
    async fn until_the_end(mut self, signals: Signals) -> i32 {
        signals::forward(signals, self.client.clone(), self.process.clone());
        Input::begin().feed(self.client.clone(), self.process.clone());
        match self.run().await {
            Ok(code) => code,
            Err(status) => {
                // Not to stdout, which may carry data; a terminal has only this stream.
                eprintln!("vc-stand-in: the machine has ended: {}", status.message());
                MACHINE_ENDED
            }
        }
    }

    async fn run(&mut self) -> Result<i32, Status> {
        let outputs = [Output::begin(1), Output::begin(2)];
        while let Some(chunk) = self.output.message().await? {
            match chunk.stream {
                Some(Stream::Stdout(data)) => outputs[0].write(data).await,
                Some(Stream::Stderr(data)) => outputs[1].write(data).await,
                None => {}
            }
        }
        for output in outputs {
            output.finish().await;
        }
        let reply = self.client.wait(self.process.clone()).await?.into_inner();
        if let (true, Some(group)) = (reply.out_of_memory, &self.memory_group)
            && let Err(error) = oom::end(group)
        {
            eprintln!("vc-stand-in: the host does not count that memory was short: {error}");
        }
        Ok(reply.exit_code)
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[tokio::test(start_paused = true)] // the clock goes on by itself while nothing else does
    async fn a_silent_agent_is_not_waited_for_without_an_end() {
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("agent");
        let _silent = UnixListener::bind(&socket).unwrap();
        let words = [socket.to_str().unwrap(), "c", "t", "process"].map(String::from).to_vec();
        let error = attached(words).await.err().unwrap();
        assert_eq!(error.to_string(), "the guest's agent does not answer within 60s");
    }
}
