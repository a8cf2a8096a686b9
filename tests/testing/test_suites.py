"""The suites themselves: each rule quotes the contract, and a plugin that breaks it is caught by
that rule.
"""

from __future__ import annotations

import inspect
from pathlib import Path

import pytest

from tests.testing.wrong import quiet_agents, stand_ins  # noqa: F401 - filed when imported
from tests.testing.wrong.agents import AGENTS
from tests.testing.wrong.hypervisors import HYPERVISORS
from tests.testing.wrong.networks import NETWORKS
from tests.testing.wrong.others import DEVICES, OBSERVERS
from tests.testing.wrong.storages import STORAGES
from vc_core.spec import (
    FAMILIES,
    HostDevice,
    PortMapping,
    agent,
    around,
    device,
    events,
    hypervisor,
    markers,
    network,
    storage,
)
from vc_core.testing import (
    AgentContract,
    AgentSubject,
    ContractBroken,
    DeviceContract,
    DeviceSubject,
    HypervisorContract,
    HypervisorSubject,
    NetworkContract,
    NetworkSubject,
    ObserverContract,
    ObserverSubject,
    Rule,
    StorageContract,
    StorageSubject,
    rules_of,
)
from vc_core.testing.mocks import World, mock_hypervisor
from vc_core.testing.mocks.agent import GUEST
from vc_core.testing.rules import says

SUITES = {
    HypervisorContract: HYPERVISORS,
    AgentContract: AGENTS,
    StorageContract: STORAGES,
    DeviceContract: DEVICES,
    NetworkContract: NETWORKS,
    ObserverContract: OBSERVERS,
}
RULES = [(suite, name, rule) for suite in SUITES for name, rule in rules_of(suite)]
IDS = [f"{suite.__name__}.{name}" for suite, name, _ in RULES]


def subject_of(suite: type, wrong: type, folder: Path) -> object:
    """Mocks, and one wrong plugin among them."""
    world = World(folder)
    plugin = type(wrong.__name__, (wrong,), {"world": world})
    if suite is HypervisorContract:
        return HypervisorSubject(plugin, GUEST, folder)
    if suite is AgentContract:
        return AgentSubject(plugin, mock_hypervisor(world), Path("/"), folder)
    if suite is StorageContract:
        return StorageSubject(plugin, lambda: world.litter.append("odd") or "odd")
    if suite is DeviceContract:
        own, foreign, broken = (
            HostDevice(path=folder / name, destination="/dev/x")
            for name in ("a.dev", "a.txt", "a.refused")
        )
        return DeviceSubject(plugin, own, foreign, folder, broken)
    if suite is NetworkContract:
        return NetworkSubject(plugin, folder, lambda port: _is_published(world, port), world)
    return ObserverSubject(wrong, folder)


def _is_published(world: World, port: PortMapping) -> bool:
    return any(port in connection.ports for connection in world.networks.values())


@pytest.mark.parametrize(("suite", "name", "rule"), RULES, ids=IDS)
def test_a_wrong_plugin_is_caught_by_the_sentence_that_it_breaks(
    suite, name, rule, tmp_path, monkeypatch
):
    monkeypatch.setattr("vc_core.testing.rules.LIMIT_S", 1)
    with pytest.raises(ContractBroken) as caught:
        getattr(suite(), name)(subject_of(suite, SUITES[suite][name], tmp_path))
    assert caught.value.rule == rule
    assert rule.sentence in str(caught.value)


def test_every_wrong_plugin_breaks_a_rule_that_is_there():
    for suite, wrong in SUITES.items():
        assert set(wrong) == {name for name, _ in rules_of(suite)}, suite


@pytest.mark.parametrize(("suite", "name", "rule"), RULES, ids=IDS)
def test_a_rule_quotes_the_contract(suite, name, rule: Rule):
    modules = (
        hypervisor,
        agent,
        storage,
        device,
        network,
        events,
        inspect.getmodule(around),
        markers,
    )
    texts = [module.__doc__ or "" for module in modules]
    texts += [
        vars(spec)[rule.operation].__doc__
        for spec in FAMILIES.values()
        if rule.operation in vars(spec)
    ]
    assert any(says(text, rule.sentence) for text in texts), f"nowhere does it say: {rule}"


def test_every_operation_has_a_rule():
    ruled = {rule.operation for _, _, rule in RULES}
    operations = {
        name for spec in FAMILIES.values() for name in vars(spec) if not name.startswith("_")
    }
    assert operations - ruled == set()
