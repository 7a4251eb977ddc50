import pytest

from eval.benchmark.predict import load_predictor
from eval.meshes.lifting import lifter_version
from mv3d.generate import GenerateSettings


@pytest.mark.parametrize("version", ["PREDICTION", "LIFTING"])
def test_a_new_version_has_other_folders(tiny_model, monkeypatch, version):
    def folders() -> dict[str, str]:
        predictor = load_predictor(str(tiny_model), GenerateSettings(), "cpu")
        return {"PREDICTION": predictor.fingerprint, "LIFTING": lifter_version()}

    before = folders()
    assert folders() == before
    monkeypatch.setattr(f"eval.versions.{version}", 99)
    after = folders()
    assert {name for name in before if before[name] != after[name]} == {version}
