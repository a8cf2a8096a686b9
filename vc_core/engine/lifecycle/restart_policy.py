"""Checks of the restart policy and the health check of containers."""

from __future__ import annotations

from vc_core.spec.errors import InvalidRequest
from vc_core.spec.values import Capability, ContainerSpec, Restart, RestartPolicy


def check(spec: ContainerSpec) -> None:
    """Refuses invalid values before anything is done.

    Raises:
        InvalidRequest: naming what is wrong.
    """
    restart, health = spec.restart, spec.health
    if restart.max_retries < 0 or (
        restart.max_retries and restart.policy is not RestartPolicy.ON_FAILURE
    ):
        raise InvalidRequest(
            f"max_retries is {restart.max_retries} with the policy {restart.policy}; "
            "it must be 0, or more with on-failure"
        )
    if health is None:
        return
    if not health.args:
        raise InvalidRequest(f"the health check of container {spec.id} has no command")
    if (
        min(health.interval_s, health.timeout_s) <= 0
        or health.start_period_s < 0
        or health.retries < 1
    ):
        raise InvalidRequest(
            f"the health check of container {spec.id} needs times and retries that are not negative"
        )


def require(capabilities: frozenset[Capability], spec: ContainerSpec) -> None:
    """Refuses what the chosen agent does not support.

    Raises:
        InvalidRequest: naming it.
    """
    if Capability.SUPERVISE not in capabilities and (
        spec.restart != Restart() or spec.health is not None
    ):
        raise InvalidRequest(
            f"the guest's agent, as it is chosen, neither starts container {spec.id} again nor "
            "checks its health; "
            "remove restart and health"
        )
