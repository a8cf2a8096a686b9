"""Records of drivers: what was written is read again, and what was not is refused with
the reason.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import pytest

from vc_core.driver_kit import (
    Accelerator,
    HostProcess,
    MachineState,
    decode_record,
    encode_record,
    read_manifest,
    write_manifest,
)
from vc_core.spec import HypervisorError

SCHEMA = 7


@dataclass(frozen=True)
class State(MachineState):
    places: tuple[tuple[str, int], ...] = ()


STATE = State("u", Accelerator.KVM, True, HostProcess(7, 8), ("vc0",), 2, 512, (("disk", 3),))


@pytest.mark.parametrize("state", [STATE, State()])
def test_a_record_is_read_as_it_was_written(state):
    assert decode_record(encode_record(state, SCHEMA), State, SCHEMA, "the state") == state


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"schema": 6}, r"by another version of this driver \(schema 6, not 7\)"),
        ({"vcpus": "two"}, r"the state is damaged: Expected `int`, got `str`"),
        ({"process": {"pid": 1}}, "the state is damaged: .*`start_ticks`"),
        ({"accelerator": "magic"}, "the state is damaged: Invalid enum value 'magic'"),
    ],
)
def test_a_record_of_other_values_is_refused(change, problem):
    fields = json.loads(encode_record(STATE, SCHEMA)) | change
    with pytest.raises(HypervisorError, match=problem):
        decode_record(json.dumps(fields), State, SCHEMA, "the state")


@pytest.mark.parametrize("name", ["schema", "uuid", "process", "places"])
def test_a_record_that_lacks_a_field_is_refused(name):
    fields = json.loads(encode_record(STATE, SCHEMA))
    del fields[name]
    with pytest.raises(HypervisorError, match=f"the state is damaged: it has no field '{name}'"):
        decode_record(json.dumps(fields), State, SCHEMA, "the state")


@pytest.mark.parametrize("text", ["", "{", "[]", "null", "[" * 100_000, b"\xff\xfe"])
def test_what_is_no_record_is_refused(text):
    with pytest.raises(HypervisorError, match="the state is damaged"):
        decode_record(text, State, SCHEMA, "the state")


def test_a_manifest_is_this_users_alone(tmp_path):
    path = tmp_path / "machine.json"
    write_manifest(path, STATE, SCHEMA)
    assert path.stat().st_mode & 0o777 == 0o600
    assert read_manifest(path, State, SCHEMA) == STATE
    path.unlink()
    with pytest.raises(HypervisorError, match=f"the saved machine in {tmp_path} cannot be read"):
        read_manifest(path, State, SCHEMA)


def test_only_a_machine_that_may_run_is_searched_for():
    assert State("no such uuid").with_process("no such word") == State("no such uuid")
    assert State("u", is_launched=True).with_process("no such word").process is None
    assert STATE.with_process("no such word") == STATE
