//! The connection to the guest's agent: gRPC on one stream, without tonic's transport, whose load
//! balancing and reconnecting a channel of a machine cannot use.

use std::task::{Context, Poll};

use hyper::body::Incoming;
use hyper::client::conn::http2::{Builder, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::UnixStream;
use tonic::body::Body;
use tonic::codegen::{BoxFuture, Service, http};
use vc_agent::proto::NegotiateRequest;
use vc_agent::proto::agent_client::AgentClient;

use crate::Failure;

const PROTOCOL: u32 = 5;

/// What a connection may keep of what arrives and of what is to be sent, in bytes.
pub struct Bounds {
    /// Of one call, and of all of them, which nobody has taken yet.
    pub window: u32,
    pub all_windows: u32,
    pub message: usize,
    pub unsent: usize,
}

pub const OF_A_PROCESS: Bounds =
    Bounds { window: 128 << 10, all_windows: 128 << 10, message: 1 << 20, unsent: 1 << 20 };

pub type Client = AgentClient<Connection>;

/// One HTTP/2 connection.
#[derive(Clone)]
pub struct Connection(SendRequest<Body>);

impl Service<http::Request<Body>> for Connection {
    type Response = http::Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<Self::Response, Self::Error>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Self::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        Box::pin(self.0.send_request(request))
    }
}

pub async fn connect(socket: &str, bounds: &Bounds) -> Result<Client, Failure> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(bounds.window)
        .initial_connection_window_size(bounds.all_windows)
        .max_send_buf_size(bounds.unsent);
    let (sender, connection) = builder.handshake(stream).await?;
    // Its error is that of the calls on it.
    tokio::spawn(connection);
    let origin = http::Uri::from_static("http://localhost");
    let mut client = AgentClient::with_origin(Connection(sender), origin)
        .max_decoding_message_size(bounds.message);
    client.negotiate(NegotiateRequest { oldest: PROTOCOL, newest: PROTOCOL }).await?;
    Ok(client)
}
