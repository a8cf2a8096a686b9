"""All that can go wrong, as one tree.

VcError
├── ConfigError                    problems: file, line, key path, nearest name
├── PluginError                    family, name
│   ├── PluginNotFound             installed names, what to install
│   ├── PluginLoadError            distribution, cause
│   └── PluginContractError        list of problems
├── InvalidRequest                 what was asked for makes no sense; nothing was done
├── StateError                     actual, required
├── NotFound · AlreadyExists       pod or container id
├── Busy                           the pod's lock was not free in time
├── UnsupportedOperation           operation
├── HookError                      a program that the container's config names
└── OperationError                 operation, plugin, pod
    ├── HypervisorError · AgentError · StorageError · DeviceError
    │                   │            └── PodDamaged
    │                   ├── AgentRefusal
    │                   └── CannotExecute   is_missing
    └── OperationTimeout           limit_s

A plugin raises VcErrors or anything it likes: what is not a VcError becomes its family's
OperationError at the border, with the original as its cause.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Self


class VcError(Exception):
    """Root of all errors of this project. Its text is one line that names the remedy."""


class ConfigError(VcError):
    """The configuration cannot be used.

    Attributes:
        problems: one line each, all of them.
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
        problems: one line each, all of them.
    """

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(self.problems))


class InvalidRequest(VcError):
    """What was asked for makes no sense; nothing was done."""


class StateError(VcError):
    """The pod or container is in a state in which this cannot be done.

    Attributes:
        actual: the state found.
        required: the states in which it could be done.
        reason: why it is in that state, for people; empty when that is nothing special.
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
    """Another process holds the pod's lock, and went on holding it."""


class UnsupportedOperation(VcError):
    """The plugin leaves this optional operation out."""

    def __init__(self, operation: str) -> None:
        self.operation = operation
        super().__init__(f"the chosen plugin does not support {operation}")


class HookError(VcError):
    """A container's hook failed or was killed at its limit."""


class OperationError(VcError):
    """An operation failed.

    Attributes:
        operation: the hook's name, or empty when raised by a plugin (the border fills it in).
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
        """A copy of the error with `detail` appended to its message, to be raised from it."""
        error = type(self).__new__(type(self), *self.args)
        error.__dict__.update(self.__dict__, message=f"{self.message}{detail}")
        return error


class HypervisorError(OperationError):
    """The virtual machine or its monitor failed."""


class AgentError(OperationError):
    """The guest's agent, or the way to it, failed."""


class AgentRefusal(AgentError):
    """The guest's agent answered: with an error, or with what makes no sense.

    The way to it stands.
    """


class CannotExecute(AgentError):
    """A process's program is not in the container, or is none.

    Attributes:
        is_missing: whether it is not there at all.
    """

    def __init__(self, message: str, is_missing: bool) -> None:
        self.is_missing = is_missing
        super().__init__(message)


class StorageError(OperationError):
    """The store cannot be read or written."""


class PodDamaged(StorageError):
    """What is known of the pod cannot be read; deleting it by force ends its machine and removes
    it.
    """


class DeviceError(OperationError):
    """A device cannot be passed."""


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
