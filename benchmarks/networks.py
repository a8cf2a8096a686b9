"""What a network costs at the start of a pod: by pasta and, for root, by CNI, beside none.

Another pod is on the network of CNI all the time, so that no start waits for its name server.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.host import Bench
from benchmarks.own_network import own_network
from benchmarks.report import Report
from vc_core import Runtime, Start

_NONE, _PASTA, _CNI = "none", "public", "bench"
_NAMES = {_NONE: "no network", _PASTA: "pasta", _CNI: "CNI"}
_WANTED = 1.15


async def run(report: Report, bench: Bench) -> None:
    """Measures."""
    networks = (_NONE, _PASTA, _CNI) if os.geteuid() == 0 else (_NONE, _PASTA)
    if _CNI not in networks:
        report.skipped["pods on a network of CNI"] = "only root has them"
    with _own_network(bench):
        async with bench.runtime() as runtime:
            await _starts(report, bench, runtime, networks)
        _commands(report, bench, networks)


async def _starts(
    report: Report, bench: Bench, runtime: Runtime, networks: tuple[str, ...]
) -> None:
    took: dict[str, list[float]] = {network: [] for network in networks}
    for network in networks:
        await _start(runtime, network)  # makes the template
    for number in bench.times(24):
        for network in networks if number % 2 else reversed(networks):
            took[network].append(await _start(runtime, network))
    _add(report, took, "pod from template: whole start, API")


def _commands(report: Report, bench: Bench, networks: tuple[str, ...]) -> None:
    took: dict[str, list[float]] = {network: [] for network in networks}
    for number in bench.times(16):
        for network in networks if number % 2 else reversed(networks):
            began = time.monotonic()
            bench.vc("run", "--start", "template", "--network", network, "--", "true")
            took[network].append(time.monotonic() - began)
    _add(report, took, "vc run -- true, template")


def _add(report: Report, took: dict[str, list[float]], what: str) -> None:
    medians = {
        network: report.add(f"{what}, {_NAMES[network]}", "s", samples).median
        for network, samples in took.items()
    }
    for network, median in medians.items():
        if network != _NONE:
            report.compare(f"{what}, {_NAMES[network]} / none", median, medians[_NONE], _WANTED)


async def _start(runtime: Runtime, network: str) -> float:
    pod = await runtime.create(start=Start.TEMPLATE, network=network)
    began = time.monotonic()
    await pod.start()
    took = time.monotonic() - began
    await pod.delete(force=True)
    await pod.close()
    return took


@contextmanager
def _own_network(bench: Bench) -> Iterator[None]:
    """As root, this thread is in a network namespace of its own, with a network of CNI in it."""
    if os.geteuid() != 0:
        yield
        return
    with bench.config_file.open("a") as config:
        config.write(
            f"[network.cni]\nconfig_dir = '{bench.folder}/net.d'\n"
            f"cache_dir = '{bench.folder}/cni'\n"
        )
    with own_network():
        bench.vc("network", "create", "--subnet", "203.0.113.0/24", _CNI)
        try:
            bench.vc("pod", "create", "--network", _CNI, "other")
            try:
                bench.vc("pod", "start", "other")
                yield
            finally:
                bench.vc("pod", "delete", "--force", "other")
        finally:
            bench.vc("network", "rm", _CNI)
