"""Runs untrusted Python code and prints the outcome as JSON: `python untrusted_python.py <
code.py`.

The machine has no network, the files of the host read-only below an overlay, 128 MiB of memory, at
most 64 processes and ten seconds.
"""

import json
import sys

from vc_core import Resources
from vc_core.blocking import Runtime

LIMITS = Resources(cpu_quota_us=100_000, memory_bytes=128 << 20, pids=64)

if __name__ == "__main__":
    code = sys.stdin.read()
    with Runtime.open() as runtime, runtime.pod() as pod:
        result = pod.run(
            "python3", "-I", "-c", code, user="65534:65534", resources=LIMITS, timeout_s=10
        )
    outcome = {
        "stdout": result.stdout.decode(errors="replace"),
        "stderr": result.stderr.decode(errors="replace"),
        "exit_code": result.exit_code,
        "end": result.end,
        "seconds": round(result.duration_s, 3),
    }
    print(json.dumps(outcome, indent=2))
