"""For an environment with optimum-onnx: a text encoder through its exporter, and our graph through its runtime.

python optimum_check.py FOLDER: FOLDER holds `lm/` (as `save_pretrained` leaves it, with `tokenizer.json`), `head.npy`,
`bundle/` (our text graph as `model.onnx` beside the same configuration) and `tokens.npz` (input_ids, attention_mask).
Prints one JSON line: the versions, and the vectors of both.
"""

import json
import sys
from pathlib import Path

import numpy as np
import optimum.version
import torch
import transformers
from optimum.onnxruntime import ORTModelForFeatureExtraction

folder = Path(sys.argv[1])
tokens = {name: torch.from_numpy(array) for name, array in np.load(folder / "tokens.npz").items()}
mask = tokens["attention_mask"][:, :, None].float()

exported = ORTModelForFeatureExtraction.from_pretrained(folder / "lm", export=True, provider="CPUExecutionProvider")
hidden = exported(**tokens).last_hidden_state
pooled = (hidden * mask).sum(1) / mask.sum(1)
theirs = pooled.numpy() @ np.load(folder / "head.npy").T

ours = ORTModelForFeatureExtraction.from_pretrained(folder / "bundle", provider="CPUExecutionProvider")
# its `forward` wants an output called last_hidden_state; a bundle gives the pooled vectors
found = ours.session.run(["vectors"], {name: value.numpy() for name, value in tokens.items()})[0]
versions = {"optimum": optimum.version.__version__, "transformers": transformers.__version__}
print(json.dumps({"versions": versions, "exported": theirs.tolist(), "loaded": found.tolist()}))
