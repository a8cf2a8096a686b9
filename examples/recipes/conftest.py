"""A pytest fixture that gives each test its own machine; copy it into your conftest.py."""

from collections.abc import Iterator

import pytest

from vc_core.blocking import Pod, Runtime


@pytest.fixture(scope="session")
def runtime() -> Iterator[Runtime]:
    with Runtime.open() as opened:
        yield opened


@pytest.fixture
def machine(runtime: Runtime) -> Iterator[Pod]:
    """A new pod, which is deleted after the test."""
    with runtime.pod() as pod:
        yield pod
