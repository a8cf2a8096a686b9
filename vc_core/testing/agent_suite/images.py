"""Rules of guest images, which belong to no pod."""

from __future__ import annotations

from vc_core.spec import AgentError, Finding, Guest, KernelSource, NotFound
from vc_core.testing.agent_suite.subject import AgentSubject
from vc_core.testing.rules import fails_with, rule


class ImageRules:
    """Rules of guest images, which belong to no pod."""

    @rule("agent_list_guests", "Returns all guest images, the current one first.")
    async def test_the_current_guest_is_listed_first(self, subject: AgentSubject) -> None:
        agent = subject.agent()
        current, listed = await agent.agent_guest(pod=subject.pod), await agent.agent_list_guests()
        assert listed, "it lists none"
        assert all(isinstance(one, Guest) for one in listed), f"it lists {listed}"
        assert listed[0].id == current.id, (
            f"{listed[0].id} is listed first, {current.id} is current"
        )

    @rule("agent_remove_guest", "Raises NotFound when no image or more than one matches.")
    async def test_a_guest_that_is_not_there_is_not_removed(self, subject: AgentSubject) -> None:
        await fails_with(NotFound, subject.agent().agent_remove_guest(guest_id="no-such-guest"))

    @rule(
        "agent_diagnose",
        "Reports whether there is a guest image, and what is missing to build one.",
    )
    async def test_a_diagnosis_is_findings(self, subject: AgentSubject) -> None:
        found = await subject.agent().agent_diagnose()
        assert all(isinstance(one, Finding) for one in found), f"it gave {found}"

    @rule("agent_guest", "Returns the guest image for a pod that boots now.")
    async def test_a_pod_boots_the_current_image(self, subject: AgentSubject) -> None:
        image = await subject.agent().agent_guest(pod=subject.pod)
        assert image.is_current, f"{image.id} is not the current image"

    @rule("agent_build_guest", "Raises AgentError when a file of `source` is not there.")
    async def test_no_image_is_built_of_a_kernel_that_is_not_there(
        self, subject: AgentSubject
    ) -> None:
        source = KernelSource(image=subject.folder / "no-such-kernel")
        await fails_with(
            AgentError, subject.agent().agent_build_guest(source=source, report=lambda _: None)
        )
