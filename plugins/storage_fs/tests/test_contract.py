"""The store keeps the contract."""

from __future__ import annotations

import pytest
from vc_storage_fs import FsOptions, FsStorage

from vc_core.testing import StorageContract, StorageSubject


class TestFs(StorageContract):
    @pytest.fixture
    def subject(self, tmp_path):
        roots = FsOptions(tmp_path / "run", tmp_path / "config")

        def litter() -> str:
            (roots.config_root / "pods/odd").mkdir()
            return "odd"

        return StorageSubject(lambda: FsStorage(roots), litter)
