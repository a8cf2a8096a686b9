"""Values of the contract about the supervision of containers: restarts and health checks."""

from __future__ import annotations

import enum

from msgspec import Struct


class RestartPolicy(enum.StrEnum):
    """When a container is restarted after its first process has ended by itself."""

    NO = "no"
    ON_FAILURE = "on-failure"  # when it has exited with another code than 0
    ALWAYS = "always"


class Restart(Struct, frozen=True, kw_only=True):
    """When the guest restarts a container. Its files are kept.

    A container that was asked to end is not restarted.

    Attributes:
        policy: which ends of the first process cause a restart.
        max_retries: maximum number of restarts; 0 for no limit.
    """

    policy: RestartPolicy = RestartPolicy.NO
    max_retries: int = 0


class HealthCheck(Struct, frozen=True, kw_only=True):
    """A command that the guest runs in a container periodically; exit code 0 means healthy.

    Attributes:
        args: the whole argv.
        interval_s: time between two checks, in seconds.
        timeout_s: time limit of a check, in seconds; a check that exceeds it is killed and counts
            as failed.
        retries: number of consecutive failures that make the container unhealthy.
        start_period_s: time after the start, in seconds, in which failures do not count, until a
            first success.
    """

    args: tuple[str, ...]
    interval_s: float = 30
    timeout_s: float = 30
    retries: int = 3
    start_period_s: float = 0


class Health(enum.StrEnum):
    """The health of a container, as its checks determined it."""

    NONE = ""  # there is no check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
