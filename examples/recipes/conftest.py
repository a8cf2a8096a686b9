"""A fixture that gives each test a machine of its own: put it into your conftest.py."""

from collections.abc import Iterator

import pytest

from vc_core.blocking import Pod, Runtime


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    with Runtime.open() as opened:
        yield opened


@pytest.fixture
def machine(runtime: Runtime) -> Iterator[Pod]:
    """Fresh, and gone after the test whatever that has done to it."""
    with runtime.pod() as pod:
        yield pod
