from __future__ import annotations

from pathlib import Path

import pytest

from vc_core.images import Images


@pytest.fixture
def images(tmp_path: Path) -> Images:
    return Images(tmp_path / "images", 10)
