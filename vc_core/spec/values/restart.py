"""What crosses the border about containers that are to last: when one is started again, how it is
found to be well.
"""

from __future__ import annotations

import enum

from msgspec import Struct


class RestartPolicy(enum.StrEnum):
    """Whether a container is started again when its first process has ended by itself."""

    NO = "no"
    ON_FAILURE = "on-failure"  # when that has exited with another code than 0
    ALWAYS = "always"


class Restart(Struct, frozen=True, kw_only=True):
    """When the guest starts a container again, with all that it has written. Not after somebody has
    asked it to end.

    Attributes:
        policy: whether.
        max_retries: how often; 0 is no limit.
    """

    policy: RestartPolicy = RestartPolicy.NO
    max_retries: int = 0


class HealthCheck(Struct, frozen=True, kw_only=True):
    """A command that the guest runs in a container again and again; it exits with 0 when all is
    well.

    Attributes:
        args: the whole argv.
        interval_s: between two of them.
        timeout_s: after which one is killed, which counts as a failure.
        retries: so many failures one after the other make the container unhealthy.
        start_period_s: failures do not count so long, until a first success.
    """

    args: tuple[str, ...]
    interval_s: float = 30
    timeout_s: float = 30
    retries: int = 3
    start_period_s: float = 0


class Health(enum.StrEnum):
    """What the checks of a container have found."""

    NONE = ""  # there is no check
    STARTING = "starting"
    HEALTHY = "healthy"
    UNHEALTHY = "unhealthy"
