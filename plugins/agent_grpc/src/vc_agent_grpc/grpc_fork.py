"""A separate copy of grpc for a child of fork(2).

grpc's threads are not in the child, and its asyncio API is not covered by its support for fork: a
child that creates a channel with the inherited library waits forever, or is aborted. Therefore the
child loads grpc's modules and its library once more. The library is loaded from a copy in memory,
because the dynamic linker loads the same file only once; its symbols are not shared with those of
the first one. The inherited library stays untouched: its objects are never freed in the child,
because freeing a channel waits for grpc's threads; and grpc's own handlers of fork(2) do not run,
because they start threads in the child that work on the parent's connections and abort.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import sys
from importlib.machinery import ExtensionFileLoader, ModuleSpec
from importlib.util import spec_from_file_location
from pathlib import Path
from types import ModuleType

_LIBRARY = "grpc._cython.cygrpc"
# Modules with objects of grpc. The messages (agent_pb2) belong to protobuf, which allows only one
# description of them.
_OURS = ("vc_agent_grpc.client", "vc_agent_grpc.streams", "vc_agent_grpc._generated.agent_pb2_grpc")
_inherited: list[object] = []
# A reference that is never released: not even the end of the interpreter frees the list.
ctypes.pythonapi.Py_IncRef(ctypes.py_object(_inherited))
_is_inherited = False


def _remember() -> None:
    global _is_inherited  # noqa: PLW0603 (one for each process)
    if _LIBRARY in sys.modules:
        _is_inherited = True
        _inherited.extend(value for value in gc.get_objects() if _is_grpc(type(value).__module__))


os.register_at_fork(after_in_child=_remember)


def prepare() -> None:
    """Sets the environment variables that grpc reads when it is first used in a process.

    A program that has used grpc before, or has set these variables, keeps its own settings.
    """
    os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # it would print data that a guest sends
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")


def client_module() -> ModuleType:
    """Returns the client module, which works in this process."""
    global _is_inherited  # noqa: PLW0603 (as above)
    if _is_inherited:
        _load_anew()
        _is_inherited = False
    return importlib.import_module(_OURS[0])


def _load_anew() -> None:
    theirs = {name: module for name, module in sys.modules.items() if _is_grpc(name)}
    ours = {name: sys.modules[name] for name in _OURS if name in sys.modules}
    _inherited.extend((*theirs.values(), *ours.values()))
    for name in (*theirs, *ours):
        del sys.modules[name]
    finder = _Finder(str(theirs[_LIBRARY].__file__))
    sys.meta_path.insert(0, finder)
    try:
        importlib.import_module(_OURS[0])
    finally:
        sys.meta_path.remove(finder)
        for name in [name for name in sys.modules if _is_grpc(name)]:
            del sys.modules[name]  # modules of this package refer to each other
        sys.modules.update(theirs)


def _is_grpc(name: object) -> bool:
    """Returns whether it names a module of grpc. `__module__` of a class may be any object."""
    return isinstance(name, str) and (name == "grpc" or name.startswith("grpc."))


class _Finder:
    """Finds the copy of grpc's library in memory, and nothing else."""

    def __init__(self, file: str) -> None:
        self._file = file

    def find_spec(self, name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """See importlib.abc.MetaPathFinder."""
        if name != _LIBRARY:
            return None
        copy = os.memfd_create("cygrpc")
        with Path(self._file).open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            while os.lseek(copy, 0, os.SEEK_CUR) < size:
                if not os.sendfile(copy, source.fileno(), None, size):
                    break
        # The process id is in the path, because the linker also identifies loaded libraries
        # by path.
        path_of_copy = f"/proc/{os.getpid()}/fd/{copy}"
        return spec_from_file_location(name, path_of_copy, loader=_Loader(name, path_of_copy, copy))


class _Loader(ExtensionFileLoader):
    def __init__(self, name: str, path: str, copy: int) -> None:
        super().__init__(name, path)
        self._copy = copy

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        """Loads the copy, which needs no descriptor afterwards."""
        try:
            return super().create_module(spec)
        finally:
            os.close(self._copy)
