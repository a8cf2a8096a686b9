"""What a hostile guest answers to everything, or to one call."""

from __future__ import annotations

from collections.abc import Iterator

import grpc
from vc_agent_grpc._generated import agent_pb2 as pb

from tests.hostile.agent import Agent, Answer, until_given_up

ESCAPES = "\x1b]0;owned\x07\x1b[2J\x9b2J\r\x08\u202e[/x]"


def refuses(code: grpc.StatusCode, text: str = ESCAPES) -> Answer:
    """An error of gRPC's."""

    def answer(_request: bytes, context: grpc.ServicerContext) -> bytes:
        context.abort(code, text)
        raise AssertionError

    return answer


def says(*messages: bytes) -> Answer:
    """These bytes."""
    return lambda *_: iter(messages)


def drops(agent: Agent) -> Answer:
    """The end of the connection."""

    def answer(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        agent.drop()
        yield from until_given_up(context)

    return answer


def silent(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """Nothing, for as long as somebody waits."""
    return until_given_up(context)


def writes(*pieces: bytes, stderr: bytes = b"") -> Answer:
    """A process that writes this and ends."""

    def answer(_request: bytes, _context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b""
        for piece in pieces:
            yield pb.OutputChunk(stdout=piece).SerializeToString()
        if stderr:
            yield pb.OutputChunk(stderr=stderr).SerializeToString()

    return answer


def writes_on(piece: bytes, first: bytes = b"") -> Answer:
    """A process that writes without an end."""

    def answer(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
        yield b""
        if first:
            yield pb.OutputChunk(stdout=first).SerializeToString()
        chunk = pb.OutputChunk(stdout=piece).SerializeToString()
        while context.is_active():
            yield chunk

    return answer


def breaks(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:
    """A process whose output breaks off."""
    yield b""
    yield pb.OutputChunk(stdout=b"half").SerializeToString()
    context.abort(grpc.StatusCode.ABORTED, ESCAPES)
