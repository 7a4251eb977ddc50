"""Settings and fixtures for all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings
from jaxtyping import install_import_hook

from tests import shapes

if "PYTEST_XDIST_WORKER" in os.environ:  # as many workers as cores, so each has one
    os.environ.setdefault("OMP_NUM_THREADS", "1")

# The same examples on every machine and no limit on their time: a loaded machine is no failure.
settings.register_profile("mv3d", derandomize=True, deadline=None)
settings.load_profile("mv3d")

install_import_hook(shapes.CHECKED, "tests.shapes.arrays")


@pytest.fixture
def blender() -> None:
    """Skips where there is no Blender."""
    from mv3d.blender import find_blender
    from mv3d.errors import Mv3dError

    try:
        find_blender()
    except Mv3dError as error:
        pytest.skip(str(error))


@pytest.fixture
def no_blender(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine without Blender, whatever this one has."""
    empty = tmp_path_factory.mktemp("empty")
    monkeypatch.delenv("MV3D_BLENDER", raising=False)
    monkeypatch.setenv("PATH", str(empty))
    monkeypatch.setenv("XDG_DATA_HOME", str(empty))
    monkeypatch.setattr("mv3d.blender._CLONE", empty)
    monkeypatch.chdir(empty)


@pytest.fixture(scope="session")
def svd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Stock SVD as it is on the hub, but tiny, see `tests.tiny.make_svd`."""
    from tests.tiny import make_svd

    return make_svd(tmp_path_factory.mktemp("svd") / "tiny-svd")


@pytest.fixture(scope="session")
def wan_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Wan 2.2 TI2V-5B as it is on the hub, but tiny, see `tests.wan.make_wan`."""
    from tests.wan import make_wan

    return make_wan(tmp_path_factory.mktemp("wan") / "tiny-wan")
