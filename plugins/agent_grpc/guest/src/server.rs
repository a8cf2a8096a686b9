//! Serves gRPC on the channels of the machine, or on a listening socket.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::container::agent::Agent;
use crate::container::rlimits;
use crate::error::Error;
use crate::machine::kind::Kind;
use crate::machine::modules::Modules;
use crate::machine::ports;
use crate::machine::state::Machine;
use crate::process::reaper::Reaper;
use crate::service;

/// Serves forever: on `socket`, or on each channel of the machine.
pub fn run(kind: Kind, modules: Modules, socket: Option<UnixListener>) -> Result<(), Error> {
    nix::sys::prctl::set_child_subreaper(true)?;
    rlimits::raise(kind)?;
    // One thread: it saves memory in every pod, and makes the order of spawn and
    // reap deterministic.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(kind, modules, socket))
}

async fn serve(kind: Kind, modules: Modules, socket: Option<UnixListener>) -> Result<(), Error> {
    let reaper = Reaper::start()?;
    let machine = Machine::new(kind, modules)?;
    let events = machine.events.clone();
    let agent = Arc::new(Agent::new(machine, reaper));
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
            tokio::spawn(async move {
                if let Err(error) = ports::watch(events, sender).await {
                    eprintln!("vc-agent: no more connections are accepted: {error}");
                }
            });
            server.serve_with_incoming(ReceiverStream::new(receiver)).await?;
        }
    }
    Ok(())
}

fn async_accept(
    listener: tokio::net::UnixListener,
) -> ReceiverStream<std::io::Result<tokio::net::UnixStream>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while sender.send(listener.accept().await.map(|(stream, _)| stream)).await.is_ok() {}
    });
    ReceiverStream::new(receiver)
}
