"""Rules of containers that are logged, restarted, checked, and have hooks."""

from __future__ import annotations

import signal
from pathlib import Path

from msgspec import structs

from vc_core.spec import (
    Capability,
    Health,
    HealthCheck,
    OciHook,
    OciHooks,
    Restart,
    RestartPolicy,
    Stdio,
)
from vc_core.spec.log_format import Kind
from vc_core.testing.agent_suite.subject import ENDS, LIVES, AgentSubject
from vc_core.testing.rules import rule


class SupervisionRules:
    """Rules of containers that are logged, restarted, checked, and have hooks."""

    @rule(
        "agent_create_container",
        "The output of a process with Stdio.LOG is on that disk before its end is reported.",
    )
    async def test_what_was_written_is_in_the_log(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.LOG, Capability.DRIVE_PLUG)
            await guest.run("c", ("sh", "-c", "echo good; echo bad >&2; exit 3"), Stdio.LOG)
            await guest.ends("c")
            found = {
                kind: b"".join(one.data for one in guest.logged("c") if one.kind is kind)
                for kind in Kind
            }
        assert found[Kind.STDOUT] == b"good\n", f"it has {found}"
        assert found[Kind.STDERR] == b"bad\n", f"it has {found}"

    @rule("agent_wait", "A first process that is followed by a restart has not ended.")
    async def test_what_failed_is_started_again(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            await guest.run(
                "c", ENDS, restart=Restart(policy=RestartPolicy.ON_FAILURE, max_retries=2)
            )
            code = await guest.ends("c")
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert (code, found.restarts) == (3, 2), (
            f"it ended with {code} after {found.restarts} restarts"
        )

    @rule(
        "agent_signal",
        "SIGKILL, SIGTERM and the container's stop signal ask for its end: it is not restarted.",
    )
    async def test_what_is_to_end_is_not_started_again(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            await guest.run("c", LIVES, restart=Restart(policy=RestartPolicy.ALWAYS))
            await guest.agent.agent_signal(
                pod=guest.pod, container_id="c", token="c", signal=signal.SIGKILL
            )
            await guest.ends("c")
            (found,) = await guest.agent.agent_list_containers(pod=guest.pod)
        assert found.restarts == 0, f"it was started again {found.restarts} times"

    @rule(
        "agent_list_containers",
        "As many consecutive failed checks as HealthCheck.retries make a container unhealthy.",
    )
    async def test_checks_tell_how_a_container_fares(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.SUPERVISE)
            for name, code in (("good", 0), ("bad", 1)):
                check = HealthCheck(args=("sh", "-c", f"exit {code}"), interval_s=0.1, retries=2)
                await guest.run(name, LIVES, health=check)
            for name, health in (("good", Health.HEALTHY), ("bad", Health.UNHEALTHY)):
                found = await guest.container_status(
                    name, lambda one: one.health is not Health.STARTING
                )
                assert found.health is health, f"the {name} one is {found.health!r}"

    @rule(
        "agent_create_container",
        "When one fails, the process is not run and ends with a code that is not 0.",
    )
    async def test_a_hook_that_fails_is_the_end(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.START_HOOKS)
            path, codes = Path("/bin/sh"), {}
            for name, script in (("fails", "exit 3"), ("hangs", "sleep 999"), ("good", "exit 0")):
                hook = OciHook(path=path, args=("sh", "-c", script), timeout_s=1)
                hook = structs.replace(hook, env=("PATH=/usr/bin:/bin",))
                hooks = OciHooks(start_container=(hook,))
                await guest.run(name, ("sh", "-c", "exit 0"), hooks=hooks)
                codes[name] = await guest.ends(name)
        assert codes["fails"] and codes["hangs"] and codes["good"] == 0, f"they ended with {codes}"
