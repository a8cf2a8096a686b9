"""The guest's side of the protocol, played by a test: an agent that does nothing, and answers as
the test likes.

Requests and answers are bytes here, so that they can be anything. `Agent` speaks gRPC; `RawPeer`
does not.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from vc_agent_grpc._generated import agent_pb2 as pb
from vc_agent_grpc.client import NEWEST_PROTOCOL

Answer = Callable[[bytes, grpc.ServicerContext], "bytes | Iterable[bytes]"]

_EMPTY = b""
_STREAMS = {"ReadOutput", "Quiesce"}


class Agent(grpc.GenericRpcHandler):
    """An agent without containers: processes end at once and say "hello", first processes when they
    are signalled.

    Attributes:
        wrong: what it answers instead, by the method's name.
        all_wrong: what it answers to everything but Negotiate; None for the above.
        calls: of methods so far; released once for each.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.wrong: dict[str, Answer] = {}
        self.all_wrong: Answer | None = None
        self.calls = threading.Semaphore(0)
        self._first: dict[str, str] = {}  # the tokens of the containers' first processes
        self._signalled = threading.Event()
        self._server: grpc.Server | None = None

    def begin(self) -> None:
        """Listens."""
        options = (("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1))
        self._server = grpc.server(ThreadPoolExecutor(32), handlers=(self,), options=options)
        self._server.add_insecure_port(f"unix:{self.path}")
        self._server.start()

    def end(self) -> None:
        """Drops all connections, in the middle of whatever is under way."""
        self._signalled.set()
        if self._server is not None:
            self._server.stop(grace=None).wait()

    def drop(self) -> None:
        """Ends all connections while a call is under way, and takes new ones."""
        if self._server is not None:
            before = self._server
            before.stop(grace=None)
            self.begin()

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler:
        name = details.method.rpartition("/")[2]
        self.calls.release()
        if name == "WriteInput":
            return grpc.stream_unary_rpc_method_handler(self._write_input)
        wrong = self.wrong.get(name) or (None if name == "Negotiate" else self.all_wrong)
        answer = wrong or getattr(self, f"_{name}", None) or (lambda *_: _EMPTY)
        if name in _STREAMS:
            return grpc.unary_stream_rpc_method_handler(answer)
        # A generator is an answer, too: its pieces are joined.
        return grpc.unary_unary_rpc_method_handler(lambda *asked: b"".join(_pieces(answer(*asked))))

    def _write_input(self, chunks: Iterator[bytes], context: grpc.ServicerContext) -> bytes:
        wrong = self.wrong.get("WriteInput") or self.all_wrong
        if wrong is not None:
            return b"".join(wrong(_EMPTY, context))
        with contextlib.suppress(grpc.RpcError):
            for chunk in chunks:
                if pb.InputChunk.FromString(chunk).is_last:
                    break
        return _EMPTY

    @staticmethod
    def _Negotiate(_request: bytes, _context: object) -> bytes:  # noqa: N802 (the protocol's name)
        return pb.NegotiateReply(
            protocol=NEWEST_PROTOCOL, agent_version="1", kernel="6.1"
        ).SerializeToString()

    def _CreateContainer(self, request: bytes, _context: object) -> bytes:  # noqa: N802
        made = pb.CreateContainerRequest.FromString(request)
        self._first[made.container_id] = made.token
        return _EMPTY

    def _ListContainers(self, _request: bytes, _context: object) -> bytes:  # noqa: N802
        rows = [pb.ContainerInfo(container_id=name) for name in self._first]
        return pb.ListContainersReply(containers=rows).SerializeToString()

    def _RemoveContainer(self, request: bytes, _context: object) -> bytes:  # noqa: N802
        self._first.pop(pb.ContainerRequest.FromString(request).container_id, None)
        return _EMPTY

    @staticmethod
    def _ListProcesses(_request: bytes, _context: object) -> bytes:  # noqa: N802
        return pb.ListProcessesReply(
            processes=[pb.ProcessInfo(pid=1, command=["sh"])]
        ).SerializeToString()

    @staticmethod
    def _ReadOutput(_request: bytes, _context: object) -> Iterator[bytes]:  # noqa: N802
        yield _EMPTY
        yield pb.OutputChunk(stdout=b"hello\n").SerializeToString()

    @staticmethod
    def _Quiesce(_request: bytes, context: grpc.ServicerContext) -> Iterator[bytes]:  # noqa: N802
        yield _EMPTY
        yield from until_given_up(context)

    def _Signal(self, _request: bytes, _context: object) -> bytes:  # noqa: N802
        self._signalled.set()
        return _EMPTY

    def _Wait(self, request: bytes, context: grpc.ServicerContext) -> bytes:  # noqa: N802
        if pb.ProcessRequest.FromString(request).token in self._first.values():
            context.add_callback(self._signalled.set)
            self._signalled.wait()
            self._signalled.clear()
        return _EMPTY


def _pieces(answer: bytes | Iterable[bytes]) -> Iterable[bytes]:
    return [answer] if isinstance(answer, bytes) else answer


def until_given_up(context: grpc.ServicerContext) -> Iterator[bytes]:
    """No answer, for as long as somebody waits for one."""
    given_up = threading.Event()
    if context.add_callback(given_up.set):
        given_up.wait()
    yield from ()


class RawPeer:
    """Who listens where an agent should, and does with each connection what it is told to."""

    def __init__(self, path: Path, play: Callable[[socket.socket], None]) -> None:
        self._path = path
        self._play = play
        self._connections: list[socket.socket] = []
        self._listening = socket.socket(socket.AF_UNIX)
        self._thread = threading.Thread(target=self._serve, daemon=True)

    def begin(self) -> None:
        """Listens."""
        self._path.unlink(missing_ok=True)
        self._listening.bind(str(self._path))
        self._listening.listen()
        self._thread.start()

    def end(self) -> None:
        """Drops all connections."""
        for one in (self._listening, *self._connections):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._thread.join()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):  # it is the end
            while True:
                connection, _ = self._listening.accept()
                self._connections.append(connection)
                threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the other side has had enough
            self._play(connection)
