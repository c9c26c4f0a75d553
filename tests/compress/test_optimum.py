"""optimum's exporter and runtime agree with the text graph, in an environment of their own (`make test-optimum`).

optimum-onnx 0.1 wants transformers below 4.58, so that it cannot be installed beside this package's training part.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compress.models.text import TextEncoder
from compress.quantize.parts import TextPart
from compress.quantize.quantizers import Int8Dynamic
from compress.quantize.text_graph import export_text
from compress.teacher.backbone import RandomBert
from deploy.text import TextEncoder as GraphTextEncoder

PYTHON = os.environ.get("SLIMREC_OPTIMUM_PYTHON", "")
CHECK = Path(__file__).with_name("optimum_check.py")
TEXTS = ["the silent river", "a frozen empire of mirrors", "broken", "golden river, silent empire"]

pytestmark = pytest.mark.skipif(not PYTHON, reason="SLIMREC_OPTIMUM_PYTHON is not set: make test-optimum sets it up")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("optimum")
    encoder = RandomBert(layers=2)(TEXTS, 8, 0)
    encoder = TextEncoder(encoder.lm, encoder.tokenizer, encoder.shape, 12).eval()
    encoder.lm.save_pretrained(folder / "lm")
    (folder / "lm" / "tokenizer.json").write_text(encoder.tokenizer.to_str())
    np.save(folder / "head.npy", encoder.head.weight.detach().numpy())
    ids, mask = encoder.tokenize(TEXTS)
    np.savez(folder / "tokens.npz", input_ids=ids.numpy(), attention_mask=mask.numpy())
    (folder / "bundle").mkdir()
    (folder / "bundle" / "config.json").write_bytes((folder / "lm" / "config.json").read_bytes())
    export_text(encoder, folder / "fp32.onnx")
    Int8Dynamic().text(TextPart(encoder, folder / "fp32.onnx", TEXTS), folder / "int8.onnx")
    np.save(folder / "torch.npy", encoder.encode(TEXTS))
    return folder


def asked(folder: Path, graph: str) -> Any:
    (folder / "bundle" / "model.onnx").write_bytes((folder / graph).read_bytes())
    done = subprocess.run([PYTHON, str(CHECK), str(folder)], text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_optimums_exporter_gives_the_same_vectors(folder: Path) -> None:
    found = asked(folder, "fp32.onnx")
    assert found["versions"]["transformers"].startswith("4.")
    np.testing.assert_allclose(np.array(found["exported"]), np.load(folder / "torch.npy"), atol=1e-5)
    np.testing.assert_allclose(np.array(found["loaded"]), np.load(folder / "torch.npy"), atol=1e-5)


def test_a_bundles_text_encoder_loads_in_optimums_runtime(folder: Path) -> None:
    """The INT8 graph too, with the answers of the device's runtime to the same batch."""
    found = asked(folder, "int8.onnx")
    session = GraphTextEncoder(folder / "int8.onnx", folder / "lm" / "tokenizer.json", 8)._session
    expected = session.run(["vectors"], dict(np.load(folder / "tokens.npz")))[0]
    np.testing.assert_allclose(np.array(found["loaded"]), expected, atol=1e-5)
