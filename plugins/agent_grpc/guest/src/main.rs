//! vc-agent: the only program of a virtcontainers guest that is always there.
//!
//! As PID 1 it readies the machine (`boot`), serves gRPC on every channel that appears (`ports`), and runs containers
//! through crun (`containers`). With `--sandbox` it does the same in namespaces of the host's kernel (`sandbox`), with
//! `--socket PATH` as an ordinary process.

mod boot;
mod containers;
mod crun;
mod devices;
mod fd_stream;
mod files;
mod identity;
mod inside;
mod limits;
mod log;
mod logged;
mod machine;
mod pod;
mod ports;
mod procfs;
mod process;
mod reaper;
mod restarts;
mod sandbox;
mod service;
mod shares;
mod spare;
mod storage;
mod uevents;
mod users;
mod volumes;

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

pub mod proto {
    tonic::include_proto!("virtcontainers.agent.v1");
}

type Failure = Box<dyn std::error::Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args: Vec<String> = std::env::args().collect();
    let words: Vec<&str> = args.iter().skip(1).map(String::as_str).collect();
    match words.as_slice() {
        ["--version"] => {
            println!("vc-agent {}", env!("CARGO_PKG_VERSION"));
            return Ok(());
        }
        ["--prove"] if std::process::id() == 1 => match machine::power_off()? {}, // userspace was reached: that is all
        [files::WORD, verb, root, path, name] => return files::serve(verb, root, path, name),
        [volumes::WORD, rootfs, path, volume] => return volumes::serve(rootfs, path, volume),
        [pod::PAUSE] => return pod::hold_namespace(),
        ["--socket", path] => return run(Some(UnixListener::bind(path)?)),
        ["--sandbox", socket, folder, shares @ ..] => return run(Some(sandbox::enter(socket, folder, shares)?)),
        _ if std::process::id() != 1 => {
            return Err("vc-agent is PID 1 of a guest; elsewhere say --socket PATH".into());
        }
        [boot::SECOND_STAGE] => boot::ready_machine()?,
        _ => match boot::move_root()? {}, // runs this program again, in the new root
    }
    run(None)
}

fn run(socket: Option<UnixListener>) -> Result<(), Failure> {
    nix::sys::prctl::set_child_subreaper(true)?;
    limits::raise()?;
    // One thread: every pod pays for the agent's memory, and the order of spawn and reap is certain.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(socket))
}

async fn serve(socket: Option<UnixListener>) -> Result<(), Failure> {
    let reaper = reaper::Reaper::start()?;
    let uevents = uevents::listen()?;
    let agent = Arc::new(containers::Containers::new(reaper, uevents.clone()));
    let server = Server::builder()
        .initial_stream_window_size(1 << 20)
        .initial_connection_window_size(4 << 20)
        .add_service(service::server(agent));
    match socket {
        Some(listener) => {
            listener.set_nonblocking(true)?;
            let incoming = async_accept(tokio::net::UnixListener::from_std(listener)?);
            server.serve_with_incoming(incoming).await?;
        }
        None => {
            let (sender, receiver) = tokio::sync::mpsc::channel(4);
            tokio::spawn(ports::watch(uevents, sender));
            server.serve_with_incoming(ReceiverStream::new(receiver)).await?;
        }
    }
    Ok(())
}

fn async_accept(listener: tokio::net::UnixListener) -> ReceiverStream<std::io::Result<tokio::net::UnixStream>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while sender.send(listener.accept().await.map(|(stream, _)| stream)).await.is_ok() {}
    });
    ReceiverStream::new(receiver)
}
