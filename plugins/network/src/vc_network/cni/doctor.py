"""The findings of `vc doctor` about networks of CNI."""

from __future__ import annotations

import os
from collections.abc import Iterator

from vc_core.driver_kit import find_program
from vc_core.spec import Finding, Verdict
from vc_network import doctor
from vc_network.cni import chain, configuration, own_lists
from vc_network.cni.options import CniOptions
from vc_network.namespace import PACKAGES

_PACKAGE = "containernetworking-plugins"


def diagnose(options: CniOptions) -> tuple[Finding, ...]:
    """Checks the user, the programs, and that all networks have their plugins."""
    return (*doctor.diagnose_redirected(), *_findings(options))


def _findings(options: CniOptions) -> Iterator[Finding]:
    if os.geteuid() != 0:
        yield Finding(
            subject="networks of CNI",
            verdict=Verdict.BAD,
            detail="they are for root only",
            remedy='[use] network = "pasta"',
        )
        return
    if options.names and find_program("dnsmasq") is None:
        yield Finding(
            subject="names of pods",
            verdict=Verdict.BAD,
            detail="dnsmasq is missing: pods do not find each other by name",
            remedy="apt-get install dnsmasq-base, or network.cni.names = false",
        )
    networks, problems = configuration.load_all(options.config_dir)
    for path, problem in problems.items():
        yield Finding(subject=f"CNI file {path.name}", verdict=Verdict.WARNING, detail=problem)
    for network in networks.values():
        missing = chain.missing(network, options.plugin_dirs)
        yield Finding(
            subject=f"network {network.name}",
            verdict=Verdict.BAD if missing else Verdict.GOOD,
            detail=f"CNI plugins are missing: {', '.join(missing)}"
            if missing
            else f"{network.path}, CNI {network.version}",
            remedy=f"apt-get install {_PACKAGE}" if missing else "",
        )
    if any(map(own_lists.is_own, networks.values())) and find_program("nft") is None:
        yield Finding(
            subject="rules of networks",
            verdict=Verdict.BAD,
            detail="nft is missing: networks of 'vc network create' reach no outside",
            remedy=f"apt-get install {PACKAGES['nft']}",
        )
    if not networks:
        yield Finding(
            subject="networks of CNI",
            verdict=Verdict.WARNING,
            detail=f"there is none in {options.config_dir}",
            remedy="'vc network create NAME' makes one",
        )
