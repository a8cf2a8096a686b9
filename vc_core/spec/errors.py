"""The exceptions of this project, as one tree.

VcError
├── ConfigError                    problems: file, line, key path, nearest name
├── PluginError                    family, name
│   ├── PluginNotFound             installed names, what to install
│   ├── PluginLoadError            distribution, cause
│   └── PluginContractError        list of problems
├── InvalidRequest                 the arguments are invalid; nothing was done
├── StateError                     actual, required
├── NotFound · AlreadyExists       pod or container id
├── Busy                           the pod's lock was not free in time
├── UnsupportedOperation           operation
├── HookError                      a program that the container's config names
└── OperationError                 operation, plugin, pod
    ├── HypervisorError · AgentError · StorageError · DeviceError · NetworkError
    │                   │            └── PodDamaged
    │                   ├── AgentRefusal
    │                   └── CannotExecute   is_missing
    └── OperationTimeout           limit_s

A plugin may raise any exception. The engine converts one that is no VcError into the OperationError
of the plugin's family, with the original as its cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


class VcError(Exception):
    """Root of all errors of this project. Its text is one line that includes the remedy."""


class ConfigError(VcError):
    """The configuration is invalid.

    Attributes:
        problems: all problems, one line each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class PluginError(VcError):
    """A plugin cannot be used."""

    def __init__(self, family: str, name: str, message: str) -> None:
        self.family = family
        self.name = name
        super().__init__(message)


class PluginNotFound(PluginError):
    """No installed distribution offers the plugin, or more than one does."""


class PluginLoadError(PluginError):
    """The plugin's module or constructor failed; the cause is attached."""


class PluginContractError(VcError):
    """The chosen plugins break the contract or do not fit together.

    Attributes:
        problems: all problems, one line each.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class InvalidRequest(VcError):
    """The arguments of the call are invalid; nothing was done."""


class StateError(VcError):
    """The operation is not possible in the current state of the pod or container.

    Attributes:
        actual: the current state.
        required: the states in which the operation is possible.
        reason: the cause of the current state, as text for people; empty when there is no
            special cause.
    """

    def __init__(self, subject: str, verb: str, actual: str, required: Iterable[str]) -> None:
        self.actual = actual
        self.required = tuple(required)
        self.reason = ""
        self._subject = subject
        self._verb = verb
        super().__init__(
            f"{subject} is {actual}; to {verb} it must be {' or '.join(self.required)}"
        )

    def __str__(self) -> str:
        reason = f": {self.reason}" if self.reason else ""
        return (
            f"{self._subject} is {self.actual}{reason}; "
            f"to {self._verb} it must be {' or '.join(self.required)}"
        )


class NotFound(VcError):
    """No such pod, container or process."""


class AlreadyExists(VcError):
    """The id is taken."""


class Busy(VcError):
    """Another process held the pod's lock until the time limit of the call."""


class UnsupportedOperation(VcError):
    """The plugin does not implement this optional operation."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"the chosen plugin does not support {operation}")


class HookError(VcError):
    """A container's hook failed, or was killed at its time limit."""


class OperationError(VcError):
    """An operation failed.

    Attributes:
        operation: the hook's name; empty when raised by a plugin (the engine fills it in).
        plugin: the plugin's name, likewise.
        pod: the pod's id, empty for operations of no pod.
    """

    def __init__(self, message: str, operation: str = "", plugin: str = "", pod: str = "") -> None:
        self.message = message
        self.operation = operation
        self.plugin = plugin
        self.pod = pod
        super().__init__(message)

    def __str__(self) -> str:
        where = f"pod {self.pod}: " if self.pod else ""
        who = f" ({self.plugin}, {self.operation})" if self.plugin else ""
        return f"{where}{self.message}{who}"

    def with_detail(self, detail: str) -> Self:
        """Returns a copy of the error with `detail` appended to its message."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__, message=f"{self.message}{detail}")
        return error


class HypervisorError(OperationError):
    """The virtual machine or its monitor failed."""


class AgentError(OperationError):
    """The guest's agent, or the connection to it, failed."""


class AgentRefusal(AgentError):
    """The guest's agent answered with an error or with an invalid answer.

    The connection still works.
    """


class CannotExecute(AgentError):
    """The program of a process does not exist in the container, or is not executable.

    Attributes:
        is_missing: whether the program does not exist.
    """

    def __init__(self, message: str, is_missing: bool) -> None:
        self.is_missing = is_missing
        super().__init__(message)


class StorageError(OperationError):
    """The store cannot be read or written."""


class PodDamaged(StorageError):
    """The pod's records are unreadable.

    Deleting the pod by force ends its machine and removes it.
    """


class DeviceError(OperationError):
    """A device of the host is unfit to be passed to a machine."""


class NetworkError(OperationError):
    """A pod cannot be connected to its network."""


class OperationTimeout(OperationError):
    """An operation did not end within its deadline.

    Attributes:
        limit_s: the deadline, in seconds.
    """

    def __init__(
        self, limit_s: float, operation: str, plugin: str, pod: str = "", setting: str = ""
    ) -> None:
        self.limit_s = limit_s
        setting = setting or f"operations.{operation}"
        super().__init__(
            f"no answer within {limit_s:g} s; raise deadlines.{setting} if it needs longer",
            operation,
            plugin,
            pod,
        )
