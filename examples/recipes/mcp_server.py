"""A tool for AI agents that runs Python code in its own machine.

Speaks MCP on stdio; needs `pip install mcp`. The code has no network, or reaches what the variable
SANDBOX_ALLOW lists: "packages.example.com:443 *.example.org:443".
"""

import os

from mcp.server import MCPServer
from pydantic import BaseModel

from vc_core import NetworkPolicy, Resources, Runtime

LIMITS = Resources(memory_bytes=256 << 20, pids=64)
ALLOWED = os.environ.get("SANDBOX_ALLOW", "").split()
NETWORK = "public" if ALLOWED else "none"
POLICY = NetworkPolicy.of(allow=ALLOWED)

server = MCPServer("sandbox")


class Outcome(BaseModel):
    """The outcome of the code."""

    stdout: str
    stderr: str
    exit_code: int
    end: str


@server.tool()
async def run_python(code: str, timeout_s: float = 10) -> Outcome:
    """Run Python code in a new virtual machine. It reaches allowed servers only, or none.

    Files that it writes are deleted afterwards.
    """
    async with Runtime.open() as runtime, runtime.pod(network=NETWORK, policy=POLICY) as pod:
        result = await pod.run("python3", "-I", "-c", code, resources=LIMITS, timeout_s=timeout_s)
    output, errors = (text.decode(errors="replace") for text in (result.stdout, result.stderr))
    return Outcome(stdout=output, stderr=errors, exit_code=result.exit_code, end=result.end)


if __name__ == "__main__":
    server.run()
