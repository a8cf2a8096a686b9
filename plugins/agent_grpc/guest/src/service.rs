//! The gRPC service: each method checks, calls, answers.

use std::sync::Arc;

use tokio::io::AsyncWriteExt;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::service::interceptor::InterceptedService;
use tonic::{Request, Response, Status, Streaming};

use crate::container::pod;
use crate::container::table::{Containers, internal};
use crate::machine::identity;
use crate::machine::online;
use crate::process::child::Output;
use crate::process::log;
use crate::process::procfs;
use crate::proto::agent_server::{Agent, AgentServer};
use crate::proto::*;
use crate::share_fs::shares;

/// Raised when an older client could not live with what this agent says.
const PROTOCOL: u32 = 5;
const FEATURES: [&str; 3] = ["terminal", "overlay", "scsi"];
/// The name of the metadata with the host's time, in nanoseconds since the epoch.
const TIME: &str = "vc-time-ns";
const MAX_MESSAGE_BYTES: usize = 16 << 20;

type Reply<T> = Result<Response<T>, Status>;

pub struct Service(Arc<Containers>);

/// What the server serves.
pub type Served =
    InterceptedService<AgentServer<Service>, fn(Request<()>) -> Result<Request<()>, Status>>;

pub fn server(containers: Arc<Containers>) -> Served {
    let agent = AgentServer::new(Service(containers)).max_decoding_message_size(MAX_MESSAGE_BYTES);
    InterceptedService::new(agent, keep_time)
}

/// Calls say what time it is on the host: a machine that was frozen, or whose host was suspended,
/// is behind.
fn keep_time(request: Request<()>) -> Result<Request<()>, Status> {
    let said = request.metadata().get(TIME).and_then(|value| value.to_str().ok()?.parse().ok());
    if let Some(time_ns) = said {
        online::catch_up(time_ns).map_err(internal)?;
    }
    Ok(request)
}

fn done() -> Reply<Empty> {
    Ok(Response::new(Empty {}))
}

/// For what must not end half done, because the client has given up or is gone.
async fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = Result<T, Status>> + Send + 'static,
) -> Result<T, Status> {
    tokio::spawn(work).await.map_err(|error| Status::internal(error.to_string()))?
}

#[tonic::async_trait]
impl Agent for Service {
    async fn negotiate(&self, request: Request<NegotiateRequest>) -> Reply<NegotiateReply> {
        let NegotiateRequest { oldest, newest } = request.into_inner();
        if !(oldest..=newest).contains(&PROTOCOL) {
            return Err(Status::failed_precondition(format!(
                "the guest's agent speaks protocol {PROTOCOL}, this client {oldest} to {newest}"
            )));
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
        let request = request.into_inner();
        identity::take(&request, &self.0.first_processes(), &self.0.folders()).map_err(internal)?;
        if !request.resolv_conf.is_empty() {
            pod::set_resolv_conf(&request.resolv_conf).map_err(internal)?;
        }
        if request.shm_bytes != 0 {
            pod::share_shm(request.shm_bytes).map_err(internal)?;
        }
        if request.shared_pid {
            pod::share_pid(self.0.reaper()).await.map_err(internal)?;
        }
        done()
    }

    type FreezeStream = ReceiverStream<Result<Empty, Status>>;

    async fn freeze(&self, _: Request<Empty>) -> Reply<Self::FreezeStream> {
        self.0.warm_up().await.map_err(internal)?;
        shares::let_go().map_err(internal)?;
        log::let_go().await;
        let (sender, receiver) = mpsc::channel(1);
        sender.try_send(Ok(Empty {})).map_err(|error| Status::internal(error.to_string()))?;
        tokio::spawn(async move {
            // Whoever asked may be killed, or be the client of another machine: nobody is left
            // waiting for ever.
            sender.closed().await;
            log::take();
            if let Err(error) = shares::take() {
                // for the console: nobody listens
                eprintln!("vc-agent: the folders are not there again: {error}");
            }
        });
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn thaw(&self, _: Request<Empty>) -> Reply<Empty> {
        log::take();
        shares::take().map_err(internal)?;
        done()
    }

    async fn tear_down_pod(&self, _: Request<Empty>) -> Reply<Empty> {
        self.0.remove_all().await?;
        nix::unistd::sync();
        done()
    }

    async fn power_off(&self, _: Request<Empty>) -> Reply<Empty> {
        match online::power_off().map_err(internal)? {}
    }

    async fn online_resources(
        &self,
        request: Request<OnlineResourcesRequest>,
    ) -> Reply<OnlineResourcesReply> {
        let OnlineResourcesRequest { vcpus, memory_bytes } = request.into_inner();
        let outcome = online::online(vcpus as usize, memory_bytes, &self.0.events).await;
        let (vcpus, memory_bytes) = outcome.map_err(internal)?;
        let vcpus = u32::try_from(vcpus).unwrap_or(u32::MAX);
        Ok(Response::new(OnlineResourcesReply { vcpus, memory_bytes }))
    }

    async fn create_container(
        &self,
        request: Request<CreateContainerRequest>,
    ) -> Reply<ProcessReply> {
        let (containers, request) = (self.0.clone(), request.into_inner());
        let pid = to_the_end(async move { containers.create(request).await }).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    async fn start_container(&self, request: Request<ContainerRequest>) -> Reply<Empty> {
        self.0.start(&request.into_inner().container_id).await?;
        done()
    }

    async fn remove_container(&self, request: Request<ContainerRequest>) -> Reply<Empty> {
        let (containers, id) = (self.0.clone(), request.into_inner().container_id);
        to_the_end(async move { containers.remove(&id).await }).await?;
        done()
    }

    async fn list_containers(&self, _: Request<Empty>) -> Reply<ListContainersReply> {
        Ok(Response::new(ListContainersReply { containers: self.0.list() }))
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
        let id = request.into_inner().container_id;
        self.0.check(&id)?;
        procfs::stats(&id).map(Response::new).map_err(internal)
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
        let (containers, request) = (self.0.clone(), request.into_inner());
        let pid = to_the_end(async move { containers.exec(request).await }).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    async fn files(&self, request: Request<FilesRequest>) -> Reply<ProcessReply> {
        let pid = self.0.files(request.into_inner()).await?;
        Ok(Response::new(ProcessReply { pid }))
    }

    type ReadOutputStream = ReceiverStream<Output>;

    async fn read_output(&self, request: Request<ProcessRequest>) -> Reply<Self::ReadOutputStream> {
        let request = request.into_inner();
        let process = self.0.process(&request.container_id, &request.token)?;
        let (sender, receiver) = mpsc::channel(4);
        process.attach(&sender)?;
        // Without it a client could not tell acceptance from a refusal that is still on its way.
        sender
            .try_send(Ok(OutputChunk { stream: None }))
            .map_err(|error| Status::internal(error.to_string()))?;
        Ok(Response::new(ReceiverStream::new(receiver)))
    }

    async fn write_input(&self, request: Request<Streaming<InputChunk>>) -> Reply<Empty> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?;
        let named = first.as_ref().and_then(|chunk| chunk.process.clone());
        let named =
            named.ok_or_else(|| Status::invalid_argument("the first chunk names no process"))?;
        let process = self.0.process(&named.container_id, &named.token)?;
        let attached = || Status::failed_precondition("another client writes to this process");
        let mut stdin = process.streams.stdin.clone().try_lock_owned().map_err(|_| attached())?;
        let mut next = first;
        // A process that no longer reads makes the rest of its input worthless: that is no error.
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
        self.0.end_of(&request.container_id, &request.token).await.map(Response::new)
    }

    async fn signal(&self, request: Request<SignalRequest>) -> Reply<Empty> {
        self.0.signal(&request.into_inner()).await?;
        done()
    }

    async fn resize(&self, request: Request<ResizeRequest>) -> Reply<Empty> {
        let ResizeRequest { container_id, token, rows, columns } = request.into_inner();
        let process = self.0.process(&container_id, &token)?;
        let terminal = process
            .terminal
            .as_ref()
            .ok_or_else(|| Status::failed_precondition("the process has no terminal"))?;
        online::resize(terminal, rows, columns).map_err(internal)?;
        done()
    }
}
