"""A tool for AI agents that runs Python code in its own machine.

Speaks MCP on stdio; needs `pip install mcp`.
"""

from mcp.server import MCPServer
from pydantic import BaseModel

from vc_core import Resources, Runtime

LIMITS = Resources(memory_bytes=256 << 20, pids=64)

server = MCPServer("sandbox")


class Outcome(BaseModel):
    """The outcome of the code."""

    stdout: str
    stderr: str
    exit_code: int
    end: str


@server.tool()
async def run_python(code: str, timeout_s: float = 10) -> Outcome:
    """Run Python code in a new virtual machine without a network.

    Files that it writes are deleted afterwards.
    """
    async with Runtime.open() as runtime, runtime.pod() as pod:
        result = await pod.run("python3", "-I", "-c", code, resources=LIMITS, timeout_s=timeout_s)
    output, errors = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
    return Outcome(stdout=output, stderr=errors, exit_code=result.exit_code, end=result.end)


if __name__ == "__main__":
    server.run()
