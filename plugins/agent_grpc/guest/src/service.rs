//! The gRPC service: each method checks its request and calls the implementation.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use crate::container::agent::Agent;
use crate::error::Error;
use crate::machine::kind::Kind;
use crate::machine::{clock, dial, power};
use crate::process::streams::Output;
use crate::process::terminal;
use crate::proto::agent_server::{self, AgentServer};
use crate::proto::*;

/// Raised when a change is incompatible with older clients.
const PROTOCOL: u32 = 5;
const FEATURES: [&str; 5] = ["terminal", "overlay", "scsi", "hold", "dial"];
/// The name of the metadata with the host's time, in nanoseconds since the epoch.
const TIME: &str = "vc-time-ns";
const MAX_MESSAGE_BYTES: usize = 16 << 20;

type Reply<T> = Result<Response<T>, Status>;
type Message<T> = Result<T, Status>;

pub struct Service(Arc<Agent>);

/// The service with its interceptor.
pub type Served = InterceptedService<AgentServer<Service>, KeepTime>;

pub fn server(agent: Arc<Agent>) -> Served {
    let keep_time = KeepTime(agent.machine.kind);
    let server = AgentServer::new(Service(agent)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    InterceptedService::new(server, keep_time)
}

/// Sets the clock from the host's time in each call: a machine that was frozen, or whose host was
/// suspended, is behind.
#[derive(Clone)]
pub struct KeepTime(Kind);

impl Interceptor for KeepTime {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        let said = request.metadata().get(TIME).and_then(|value| value.to_str().ok()?.parse().ok());
        if let Some(time_ns) = said {
            clock::catch_up(self.0, time_ns)?;
        }
        Ok(request)
    }
}

fn done() -> Reply<Empty> {
    Ok(Response::new(Empty {}))
}

/// Completes work that must not be interrupted when its client is gone.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Error>> + Send + 'static,
) -> Result<T, Error> {
    tokio::spawn(work).await?
}

/// Returns a stream whose first message confirms that the call was accepted.
fn accepted<T>(message: T) -> (mpsc::Sender<Message<T>>, ReceiverStream<Message<T>>) {
    let (sender, receiver) = mpsc::channel(4);
    // The channel has space, and the receiver exists.
    let _ = sender.try_send(Ok(message));
    (sender, ReceiverStream::new(receiver))
}

#[tonic::async_trait]
impl agent_server::Agent for Service {
    async fn negotiate(&self, request: Request<NegotiateRequest>) -> Reply<NegotiateReply> {
        let NegotiateRequest { oldest, newest } = request.into_inner();
        if !(oldest..=newest).contains(&PROTOCOL) {
            return Err(Error::Protocol { ours: PROTOCOL, oldest, newest }.into());
        }
        let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
        Ok(Response::new(NegotiateReply {
            protocol: PROTOCOL,
            agent_version: env!("CARGO_PKG_VERSION").into(),
            features: FEATURES.map(str::to_owned).to_vec(),
            kernel: release.trim().into(),
        }))
    }

    async fn set_up_pod(&self, request: Request<SetUpPodRequest>) -> Reply<Empty> {
        self.0.holds.is_another();
        self.0.set_up_pod(&request.into_inner()).await?;
        done()
    }

    type QuiesceStream = ReceiverStream<Message<Empty>>;

    async fn quiesce(&self, _: Request<Empty>) -> Reply<Self::QuiesceStream> {
        self.0.quiesce().await?;
        let checkpoint = self.0.holds.open();
        let (sender, stream) = accepted(Empty {});
        let agent = self.0.clone();
        tokio::spawn(async move {
            // The client may be killed, or be the client of another machine: processes must not
            // wait forever.
            sender.closed().await;
            if let Err(error) = agent.unquiesce() {
                // Reported on the console, because the client is gone.
                eprintln!("vc-agent: the folders are not there again: {error}");
            }
            agent.holds.decide_later(checkpoint).await;
        });
        Ok(Response::new(stream))
    }

    async fn unquiesce(&self, _: Request<Empty>) -> Reply<Empty> {
        self.0.holds.is_same();
        self.0.unquiesce()?;
        done()
    }

    async fn tear_down_pod(&self, _: Request<Empty>) -> Reply<Empty> {
        self.0.remove_all().await?;
        nix::unistd::sync();
        done()
    }

    async fn power_off(&self, _: Request<Empty>) -> Reply<Empty> {
        match power::power_off()? {}
    }

    async fn online_resources(
        &self,
        request: Request<OnlineResourcesRequest>,
    ) -> Reply<OnlineResourcesReply> {
        let OnlineResourcesRequest { vcpus, memory_bytes } = request.into_inner();
        let online = self.0.machine.online(vcpus as usize, memory_bytes);
        let (vcpus, memory_bytes) = online.await?;
        let vcpus = u32::try_from(vcpus).unwrap_or(u32::MAX);
        Ok(Response::new(OnlineResourcesReply { vcpus, memory_bytes }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Reply<ProcessReply> {
        let (agent, request) = (self.0.clone(), request.into_inner());
        let pid = to_the_end(async move { agent.create(request).await }).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    async fn start_container(&self, request: Request<ContainerRequest>) -> Reply<Empty> {
        let (agent, id) = (self.0.clone(), request.into_inner().container_id);
        to_the_end(async move { agent.start(&id).await }).await?;
        done()
    }

    async fn remove_container(&self, request: Request<ContainerRequest>) -> Reply<Empty> {
        let (agent, id) = (self.0.clone(), request.into_inner().container_id);
        to_the_end(async move { agent.remove(&id).await }).await?;
        done()
    }

    async fn list_containers(&self, _: Request<Empty>) -> Reply<ListContainersReply> {
        Ok(Response::new(ListContainersReply { containers: self.0.containers.list() }))
    }

    async fn update_container(&self, request: Request<UpdateContainerRequest>) -> Reply<Empty> {
        let request = request.into_inner();
        self.0.update(&request.container_id, &request.oci_resources).await?;
        done()
    }

    async fn container_stats(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<ContainerStatsReply> {
        Ok(Response::new(self.0.stats(&request.into_inner().container_id)?))
    }

    async fn list_processes(
        &self,
        request: Request<ContainerRequest>,
    ) -> Reply<ListProcessesReply> {
        let id = request.into_inner().container_id;
        let processes = self.0.list_processes(&id).await?;
        Ok(Response::new(ListProcessesReply { processes }))
    }

    async fn exec(&self, request: Request<ExecRequest>) -> Reply<ProcessReply> {
        let (agent, request) = (self.0.clone(), request.into_inner());
        let pid = to_the_end(async move { agent.exec(request).await }).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    async fn files(&self, request: Request<FilesRequest>) -> Reply<ProcessReply> {
        let pid = self.0.files(request.into_inner()).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    type ReadOutputStream = ReceiverStream<Output>;

    async fn read_output(&self, request: Request<ProcessRequest>) -> Reply<Self::ReadOutputStream> {
        let request = request.into_inner();
        let process = self.0.containers.process(&request.container_id, &request.token)?;
        // Without a first message a client does not see the difference between acceptance and a
        // refusal that is still in transit.
        let (sender, stream) = accepted(OutputChunk { stream: None });
        process.attach(&sender)?;
        Ok(Response::new(stream))
    }

    async fn write_input(&self, request: Request<Streaming<InputChunk>>) -> Reply<Empty> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let named = first.as_ref().and_then(|chunk| chunk.process.clone());
        let unnamed = || Error::InvalidRequest("the first chunk names no process".into());
        let named = named.ok_or_else(unnamed)?;
        let process = self.0.containers.process(&named.container_id, &named.token)?;
        let taken = |_| Error::StreamTaken("writes to");
        let mut stdin = process.streams.stdin.clone().try_lock_owned().map_err(taken)?;
        let mut next = first;
        // A process that has closed its stdin makes the rest of the input useless: that is
        // no error.
        while let (Some(chunk), Some(pipe)) = (next, stdin.as_mut()) {
            let written = pipe.write_all(&chunk.data).await;
            if chunk.is_last || written.is_err() {
                *stdin = None;
                break;
            }
            next = chunks.message().await?;
        }
        done()
    }

    async fn wait(&self, request: Request<ProcessRequest>) -> Reply<WaitReply> {
        let request = request.into_inner();
        Ok(Response::new(self.0.end_of(&request.container_id, &request.token).await?))
    }

    type HoldStream = ReceiverStream<Message<Empty>>;

    async fn hold(&self, request: Request<HoldRequest>) -> Reply<Self::HoldStream> {
        let HoldRequest { container_id, token, ends_machine } = request.into_inner();
        let process = self.0.containers.process(&container_id, &token)?;
        let (sender, stream) = accepted(Empty {});
        let (agent, held) = (self.0.clone(), self.0.holds.begin());
        let is_first = agent.containers.is_first(&container_id, &token);
        tokio::spawn(async move {
            sender.closed().await;
            if is_first && held.is_of_another_machine().await {
                process.discard_output();
                return;
            }
            if let Err(error) = agent.let_go(&process, ends_machine).await {
                // Reported on the console, because the client is gone.
                eprintln!("vc-agent: the machine is not ended: {error}");
            }
        });
        Ok(Response::new(stream))
    }

    type DialStream = ReceiverStream<Message<DialChunk>>;

    async fn dial(&self, request: Request<Streaming<DialChunk>>) -> Reply<Self::DialStream> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.unwrap_or_default();
        let (reading, writing) = dial::connect(&first.address, first.port).await?.into_split();
        let (sender, stream) = accepted(DialChunk::default());
        tokio::spawn(dial::send(chunks, writing));
        tokio::spawn(dial::receive(reading, sender));
        Ok(Response::new(stream))
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Reply<Empty> {
        self.0.signal(&request.into_inner()).await?;
        done()
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Reply<Empty> {
        let ResizeRequest { container_id, token, rows, columns } = request.into_inner();
        let process = self.0.containers.process(&container_id, &token)?;
        let master = process.terminal.as_ref().ok_or(Error::NoTerminal)?;
        terminal::resize(master, rows, columns)?;
        done()
    }
}
