"""The guest's agent, accessed by gRPC over a byte stream."""

from vc_agent_grpc.options import GrpcAgentOptions
from vc_agent_grpc.plugin import GrpcAgent

__all__ = ["GrpcAgent", "GrpcAgentOptions"]
