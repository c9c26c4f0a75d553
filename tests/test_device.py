"""The tiny run's bundle where only the base install is: what a device has.

`make test` makes that environment and names its interpreter in SLIMREC_DEVICE_PYTHON.
"""

import json
import os
import subprocess
import urllib.request
from pathlib import Path

import pytest

from benchmarks.bench.record import BenchResult
from benchmarks.result import EvaluateResult

PYTHON = os.environ.get("SLIMREC_DEVICE_PYTHON", "")
pytestmark = pytest.mark.skipif(not PYTHON, reason="SLIMREC_DEVICE_PYTHON names no base-only interpreter (make test)")
TRAINING = ("torch", "transformers", "onnx", "pyarrow", "safetensors")


@pytest.fixture
def device(tmp_path):
    """Runs a command there, away from the source tree; returns the finished process."""
    python = Path(PYTHON).absolute()
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}

    def run(*arguments, code=0):
        command = [str(python), *map(str, arguments)]
        done = subprocess.run(command, cwd=tmp_path, env=env, text=True, capture_output=True, timeout=60)
        assert done.returncode == code, done.stderr
        return done

    return run


@pytest.fixture
def slimrec(device):
    return lambda *arguments, code=0: device("-m", "deploy", *arguments, code=code)


@pytest.fixture(scope="module")
def warm_run(tiny_runner, tmp_path_factory):
    """A run without cold items: the device's evaluation then sees the same histories as the recipe's."""
    folder = tmp_path_factory.mktemp("warm")
    return tiny_runner(folder / "out", folder / "store", "data.cold_fraction=0")


@pytest.fixture
def bundle(warm_run):
    return warm_run.out / "bundle.slim"


def test_nothing_of_training_is_installed(device):
    probe = f"import importlib.util as u; print([n for n in {TRAINING} if u.find_spec(n)])"
    assert device("-c", probe).stdout == "[]\n"


def test_verify(slimrec, bundle, warm_run):
    document = json.loads(slimrec("verify", bundle, "--json").stdout)
    assert document["level"] == "integrity only" and document["digest"] == warm_run.result.bundle.digest
    assert {"fp32", "int8", "text"} == set(document["golden"])


def test_bench(slimrec, bundle):
    result = BenchResult.model_validate_json(slimrec("bench", bundle, "--seconds", "0.2", "--json").stdout)
    assert {row.precision for row in result.latency} == {"fp32", "int8"}
    assert all(row.p50_ms > 0 and row.runs >= 10 for row in result.latency) and result.rss_mb > 20


def test_evaluate_agrees_with_the_recipes_own_measurement(slimrec, bundle, warm_run, tmp_path):
    from compress.data.synthetic import Synthetic

    data = tmp_path / "films"
    data.mkdir()
    Synthetic().write(data)
    found = EvaluateResult.model_validate_json(slimrec("evaluate", bundle, data, "--json").stdout)
    [shipped] = [model for model in warm_run.result.models if model.name == warm_run.result.selected]
    [own] = [entry.test for entry in found.accuracy if entry.precision == shipped.precision]
    assert found.dataset.users == warm_run.result.dataset.users == 60
    for metric in ("ndcg_10", "recall_10", "mrr", "coverage_10"):
        assert getattr(own, metric) == pytest.approx(getattr(shipped.accuracy.test, metric), abs=1e-6), metric


def test_recommend(slimrec, bundle):
    from deploy.runtime import Recommender

    document = json.loads(slimrec("recommend", bundle, "--history", "f2,f4,nope", "-k", 3, "--json").stdout)
    expected = Recommender.load(bundle).recommend(["f2", "f4"], 3).items
    assert [item["id"] for item in document["items"]] == [item.id for item in expected]
    assert [item["score"] for item in document["items"]] == pytest.approx([item.score for item in expected], abs=1e-5)
    assert document["unknown"] == ["nope"]


def test_serve_answers(bundle, tmp_path):
    command = [str(Path(PYTHON).absolute()), "-m", "deploy", "serve", str(bundle), "--port", "0", "--allow-unsigned"]
    with subprocess.Popen(command, cwd=tmp_path, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            banner = process.stdout.readline()
            url = next(word for word in banner.split() if word.startswith("http://")).rstrip("/")
            body = json.dumps({"history": ["f2", "f4"], "k": 3}).encode()
            request = urllib.request.Request(f"{url}/v1/recommend", body, {"Content-Type": "application/json"})
            with urllib.request.urlopen(request, timeout=30) as response:
                answer = json.load(response)
            with urllib.request.urlopen(f"{url}/healthz", timeout=30) as response:
                assert response.status == 200
        finally:
            process.kill()
    assert len(answer["items"]) == 3 and answer["source"] == "model"


def test_training_verbs_say_what_they_need(slimrec):
    line = slimrec("run", "tiny", code=2).stderr
    assert line.startswith('slimrec run: needs the compress extra: pip install "slimrec[compress]"')
    assert line.count("\n") == 1
