"""What `vc` says of plugins that cannot be used.

Installed distributions are made up on the path.
"""

from __future__ import annotations

import json

import pytest
from click.testing import CliRunner

from vc_core.cli.configuration import check
from vc_core.cli.global_options import Settings
from vc_core.cli.plugins import plugins

HALF = (
    "from vc_core.spec import hookimpl, HypervisorSpec\nclass Plugin(HypervisorSpec):\n    pass\n"
)
GOOD = (
    "from vc_core.testing.mocks import World, mock_hypervisor\n"
    "Plugin = mock_hypervisor(World(None))\n"
)
CASES = {
    "exits": ("import sys\nsys.exit(3)\n", "cannot be imported: it raises SystemExit(3)"),
    "ends": (
        "class End(BaseException): pass\nraise End('now')\n",
        "cannot be imported: it raises End('now')",
    ),
    "function": (
        "def Plugin(): pass\n",
        "is a function, not a class; name the plugin's class in the entry point",
    ),
    "instance": (
        "class Class: pass\nPlugin = Class()\n",
        "is a Class object, not a class; name the plugin's class in the entry point",
    ),
    "constructor": (
        f"{GOOD}class Plugin(Plugin):\n    def __init__(self, host, port): pass\n",
        (
            "its constructor takes (host, port), but is called without arguments, "
            "for it has no options_type; give it one"
        ),
    ),
    "options": (f"{GOOD}Plugin.options_type = 3\n", "its options_type is 3, not a dataclass"),
    "half": (HALF, "Plugin has no operation of a hypervisor plugin"),
    "parameter": (
        (
            f"from vc_core.spec import hookimpl\n{GOOD}class Plugin(Plugin):\n"
            "    @hookimpl\n    async def vm_start(self, pod, colour): pass\n"
        ),
        "vm_start takes 'colour', which that hook does not give (it gives pod); remove it",
    ),
    "mute": ("raise RuntimeError\n", "cannot be imported: it raises RuntimeError()"),
}


@pytest.fixture
def install(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(tmp_path))

    def made(name, source, requires="virtcontainers>=0.1,<1"):
        info = tmp_path / f"wrong_{name}-1.2.dist-info"
        info.mkdir()
        head = f"Metadata-Version: 2.1\nName: wrong-{name}\nVersion: 1.2\n"
        (info / "METADATA").write_text(f"{head}Requires-Dist: {requires}\n")
        (info / "entry_points.txt").write_text(
            f"[vc_core.hypervisor]\n{name} = wrong_plugin_{name}:Plugin\n"
        )
        (tmp_path / f"wrong_plugin_{name}.py").write_text(source)

    return made


def listed(name):
    result = CliRunner().invoke(plugins, ["--json"], catch_exceptions=False)
    (found,) = (one for one in json.loads(result.stdout) if one["name"] == name)
    return found


@pytest.mark.parametrize("name", CASES)
def test_a_wrong_plugin_is_listed_and_found_by_config_check(install, tmp_path, name):
    source, reason = CASES[name]
    install(name, source)
    found = listed(name)
    assert reason in f"{found['state']} {found['contract']}"
    assert "fulfilled" not in found["contract"]
    config = tmp_path / "config.toml"
    config.write_text(f'[use]\nhypervisor = "{name}"\n')
    result = CliRunner().invoke(
        check, [str(config), "--json"], obj=Settings(), standalone_mode=False
    )
    (problem,) = json.loads(result.stdout)["problems"]
    assert reason in problem
    assert name in problem
    assert result.return_value == 125


def test_the_others_are_listed_beside_one_that_ends_the_program(install):
    install("exits", CASES["exits"][0])
    assert listed("fs") | {"version": ""} == {
        "family": "storage",
        "name": "fs",
        "distribution": "virtcontainers-storage-fs",
        "version": "",
        "state": "loads",
        "contract": "fulfilled",
    }


def test_a_plugin_for_another_version_of_the_contract_is_told(install):
    install("late", GOOD, "virtcontainers>=7")
    assert "it was made for virtcontainers >=7, this is 0." in listed("late")["contract"]


def test_config_check_wires_hypervisor_and_agent(install, tmp_path):
    vsock = GOOD.replace(
        "World(None)", "World(None, capabilities=frozenset({Capability.VSOCK_CHANNEL}))"
    )
    install("apart", f"from vc_core.spec import Capability\n{vsock}")
    install("fits", GOOD)
    config = tmp_path / "config.toml"
    (tmp_path / "wrong_plugin_apart_agent.py").write_text(
        "from vc_core.testing.mocks import World, mock_agent\nPlugin = mock_agent(World(None))\n"
    )
    with (tmp_path / "wrong_apart-1.2.dist-info" / "entry_points.txt").open("a") as points:
        points.write("[vc_core.agent]\napart = wrong_plugin_apart_agent:Plugin\n")
    for agent in ("apart", "grpc"):
        config.write_text(f'[use]\nhypervisor = "apart"\nagent = "{agent}"\n')
        result = CliRunner().invoke(check, [str(config)], obj=Settings(), standalone_mode=False)
        assert (
            "the hypervisor offers vsock-channel, the agent speaks through unix-channel"
            in result.stderr
        )
        assert result.return_value == 125
    config.write_text('[use]\nhypervisor = "fits"\nagent = "apart"\n')
    result = CliRunner().invoke(check, [str(config)], obj=Settings(), standalone_mode=False)
    assert (result.stdout, result.return_value) == (f"{config}: OK\n", 0)
