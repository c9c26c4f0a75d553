"""What one call of a graph has to do, as ONNX Runtime's own profile tells it: the shapes of every node that really ran
(after its fusions), the weights each read, and on a GPU the time of each kernel."""

import json
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

FLOAT_PRODUCTS = frozenset({"MatMul", "Gemm", "FusedMatMul", "FusedGemm", "TransposeMatMul"})
# MatMulNBits may multiply as integers: taken for the faster of the two, so that a floor stays one.
INTEGER_PRODUCTS = frozenset(
    {"MatMulInteger", "MatMulIntegerToFloat", "DynamicQuantizeMatMul", "QLinearMatMul", "QGemm", "MatMulNBits"}
)
PICKING = frozenset({"Gather", "GatherElements", "GatherND", "GatherBlockQuantized", "Slice"})
"""Read of a weight only what they give out."""

_RUNS = 5


@dataclass(frozen=True)
class Work:
    """Of one call. `bytes_read`: of weights. `flops`, `int8_ops`: 2 per multiply-add. `nodes`: by provider.
    `device_ms`, `copy_ms`: None where the runtime does not tell."""

    bytes_read: int = 0
    flops: int = 0
    int8_ops: int = 0
    nodes: Mapping[str, int] = field(default_factory=dict)
    device_ms: float | None = None
    copy_ms: float | None = None


def work_of(graph: Path, providers: Sequence[str], history: NDArray[np.int64], k: int) -> Work:
    """Profiles a session of its own. history: int64 (batch, length) rows.

    Weights are not packed in advance, since a packed one is in no profile.
    """
    with tempfile.TemporaryDirectory(prefix="slimrec-profile-") as folder:
        options = ort.SessionOptions()
        options.intra_op_num_threads = 1
        options.log_severity_level = 4
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        options.add_session_config_entry("session.disable_prepacking", "1")
        session = ort.InferenceSession(str(graph), options, providers=list(providers))
        feed = {"history": history, "exclude": np.zeros((len(history), 1), np.int64), "k": np.array([k], np.int64)}
        for _ in range(_RUNS):
            session.run(None, feed)
        events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return read_profile(events, _RUNS)


def read_profile(events: Sequence[Mapping[str, Any]], runs: int) -> Work:
    """The events of a profile with `runs` runs -> the work of one: nodes of the last, kernels of the mean."""
    last = max((event["ts"] for event in events if event["name"] == "model_run"), default=0)
    nodes = [event["args"] for event in events if event["cat"] == "Node" and event["ts"] >= last]
    nodes = [node for node in nodes if "input_type_shape" in node]
    products = [(node["op_name"], _flops(node)) for node in nodes]
    kernels = [event for event in events if event["cat"] == "Kernel"]
    copies = [event for event in kernels if "memcpy" in event["name"].lower()]
    return Work(
        bytes_read=sum(map(_bytes, nodes)),
        flops=sum(flops for op, flops in products if op in FLOAT_PRODUCTS),
        int8_ops=sum(flops for op, flops in products if op in INTEGER_PRODUCTS),
        nodes=dict(Counter(str(node["provider"]) for node in nodes)),
        device_ms=sum(event["dur"] for event in kernels) / runs / 1000 if kernels else None,
        copy_ms=sum(event["dur"] for event in copies) / runs / 1000 if kernels else None,
    )


def _bytes(node: Mapping[str, Any]) -> int:
    weights = int(node["parameter_size"])
    return min(weights, int(node["output_size"])) if node["op_name"] in PICKING else weights


def _flops(node: Mapping[str, Any]) -> int:
    """2 x outputs x inner dimension: the last of the first input, which none of these graphs transposes."""
    inner = next(iter(node["input_type_shape"][0].values()))
    out = next(iter(node["output_type_shape"][0].values()))
    return 2 * prod(out) * inner[-1] if inner else 0
