from __future__ import annotations

from pathlib import Path

import pytest

from tests.images.layouts import Layout
from vc_core.images import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images", 10)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "layout")
