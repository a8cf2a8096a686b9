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

use crate::{Failure, forward};

const PROTOCOL: u32 = 5;
const WINDOW_BYTES: u32 = 128 << 10;
/// A forwarded connection whose data nobody takes must not hold up the output of the process.
const ALL_WINDOWS_BYTES: u32 = WINDOW_BYTES * (1 + forward::MOST as u32);
const MAX_MESSAGE_BYTES: usize = 1 << 20;

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

pub async fn connect(socket: &str) -> Result<Client, Failure> {
    let stream = TokioIo::new(UnixStream::connect(socket).await?);
    let mut builder = Builder::new(TokioExecutor::new());
    builder
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(ALL_WINDOWS_BYTES);
    let (sender, connection) = builder.handshake(stream).await?;
    // Its error is that of the calls on it.
    tokio::spawn(connection);
    let origin = http::Uri::from_static("http://localhost");
    let mut client = AgentClient::with_origin(Connection(sender), origin)
        .max_decoding_message_size(MAX_MESSAGE_BYTES);
    client.negotiate(NegotiateRequest { oldest: PROTOCOL, newest: PROTOCOL }).await?;
    Ok(client)
}
