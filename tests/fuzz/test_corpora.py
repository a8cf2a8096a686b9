"""Every input that is kept: what the fuzzers began with and what they found. And that each parser
refuses arbitrary bytes with no other errors than the documented ones.
"""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import TARGETS

CORPUS = Path(__file__).parent / "corpus"


@pytest.mark.parametrize("name", TARGETS)
def test_what_was_found_stays_mended(name):
    files = sorted((CORPUS / name).iterdir())
    assert files
    for file in files:
        TARGETS[name](file.read_bytes())


@pytest.mark.parametrize("name", TARGETS)
@settings(max_examples=30, deadline=None, derandomize=True, database=None)
@given(data=st.binary(max_size=2000))
def test_any_bytes_are_read_or_refused(name, data):
    TARGETS[name](data)


def test_every_corpus_has_a_target():
    assert {folder.name for folder in CORPUS.iterdir()} == set(TARGETS)
