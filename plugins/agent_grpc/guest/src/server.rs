//! Serves gRPC on the channels of the machine, or on a listening socket.

use std::os::unix::net::UnixListener;
use std::sync::Arc;

use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Server;

use crate::Failure;
use crate::container::{rlimits, table::Containers};
use crate::machine::{ports, uevents};
use crate::process::reaper::Reaper;
use crate::service;

pub fn run(socket: Option<UnixListener>) -> Result<(), Failure> {
    nix::sys::prctl::set_child_subreaper(true)?;
    rlimits::raise()?;
    // One thread: every pod pays for the agent's memory, and the order of spawn and reap is
    // certain.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(serve(socket))
}

async fn serve(socket: Option<UnixListener>) -> Result<(), Failure> {
    let reaper = Reaper::start()?;
    let uevents = uevents::listen()?;
    let agent = Arc::new(Containers::new(reaper, uevents.clone()));
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

fn async_accept(
    listener: tokio::net::UnixListener,
) -> ReceiverStream<std::io::Result<tokio::net::UnixStream>> {
    let (sender, receiver) = tokio::sync::mpsc::channel(4);
    tokio::spawn(async move {
        while sender.send(listener.accept().await.map(|(stream, _)| stream)).await.is_ok() {}
    });
    ReceiverStream::new(receiver)
}
