"""Rules of the access to the files of containers."""

from __future__ import annotations

from vc_core.spec import Capability, FilesRequest, FilesVerb
from vc_core.testing.agent_suite.subject import ENDS, LIVES, AgentSubject
from vc_core.testing.rules import rule


class FileRules:
    """Rules of the access to the files of containers."""

    @rule("agent_serve_files", "exits with 2 when nothing is at the path")
    async def test_files_that_are_not_there_are_told_in_a_line(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", LIVES)
            code, _, told = await guest.files(
                "c", FilesRequest(verb=FilesVerb.LIST, path="/no-such-folder")
            )
        assert (code, told.count(b"\n")) == (2, 1), f"it exits with {code} and says {told!r}"

    @rule("agent_serve_files", "with 3 when the request does not fit what is there")
    async def test_a_file_where_a_folder_must_be_is_told_by_the_exit_code(
        self, subject: AgentSubject
    ) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", LIVES)
            code, _, told = await guest.files(
                "c", FilesRequest(verb=FilesVerb.READ, path="/bin/sh/below")
            )
        assert (code, told.count(b"\n")) == (3, 1), f"it exits with {code} and says {told!r}"

    @rule("agent_serve_files", "The container's first process may have ended.")
    async def test_files_outlive_the_first_process(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", ENDS)
            await guest.ends("c")
            code, listed, told = await guest.files("c", FilesRequest(verb=FilesVerb.LIST, path="/"))
        assert code == 0, f"it exits with {code} and says {told!r}"
        assert b'"bin"' in listed, f"it lists {listed!r}"

    @rule("agent_serve_files", "No path leads out of the file systems that the container sees.")
    async def test_no_path_leads_out_of_a_container(self, subject: AgentSubject) -> None:
        async with subject.guest() as guest:
            await guest.needs(Capability.FILES)
            await guest.run("c", LIVES)
            inside = await guest.files("c", FilesRequest(verb=FilesVerb.LIST, path="/bin"))
            outside = await guest.files(
                "c", FilesRequest(verb=FilesVerb.LIST, path="/../../../bin")
            )
        assert outside == inside, f"/../../../bin is {outside}, /bin is {inside}"
