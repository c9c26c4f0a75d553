"""Gradual pruning: how much goes at each step, and a killed stage that goes on at the step where it was."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from compress.models.sequence import BlockShape, SequenceEncoder, SequenceShape
from compress.prune.schedule import gradually, kept
from compress.prune.sequence import StructuredSequence
from compress.prune.text import StructuredText
from compress.store import Store
from compress.training import Training


def encoder(blocks: int, heads: int, neurons: int, dim: int) -> SequenceEncoder:
    shape = (BlockShape(heads=heads, neurons=neurons),) * blocks
    return SequenceEncoder(SequenceShape(n_items=3, dim=dim, head_dim=2, blocks=shape, max_history=4))


def test_one_step_is_the_settings_as_they_are() -> None:
    structured = StructuredSequence(keep_neurons=0.3, keep_dims=0.7)
    assert list(gradually(structured, encoder(2, 2, 10, 8))) == [(structured, "")]


def test_what_is_left_after_each_step_by_hand() -> None:
    """64 neurons to an eighth: halved each time; 4 heads to a quarter: 2.52, 1.59, 1; 5 layers to 2: one a step."""
    recovery = Training(epochs=7)
    structured = StructuredSequence(
        keep_layers=2, keep_heads=0.25, keep_neurons=0.125, keep_dims=0.5, steps=3, recovery=recovery
    )
    found = list(gradually(structured, encoder(5, 4, 64, 16)))
    sizes = {"heads": 4, "neurons": 64, "dims": 16}
    seen = []
    for step, _ in found:
        sizes = {name: kept(size, getattr(step, f"keep_{name}")) for name, size in sizes.items()}
        seen.append((*sizes.values(), step.keep_layers, step.recovery.epochs))
    assert seen == [(3, 32, 13, 4, 2), (2, 16, 10, 3, 2), (1, 8, 8, 2, 3)]
    assert [what for _, what in found] == [f", step {number} of 3" for number in (1, 2, 3)]
    assert {step.recovery.learning_rate for step, _ in found} == {recovery.learning_rate}


@pytest.mark.parametrize("steps", [2, 3, 5])
@pytest.mark.parametrize("share", [0.07, 0.25, 0.5, 0.9, 1.0])
def test_the_last_step_leaves_what_one_step_would(steps: int, share: float) -> None:
    shares = {"keep_heads": share, "keep_neurons": share, "keep_dims": share}
    structured = StructuredSequence.model_validate(shares | {"steps": steps})
    for width in (1, 2, 7, 64, 384):
        left = width
        for step, _ in gradually(structured, encoder(1, width, width, width)):
            assert step.keep_heads == step.keep_neurons == step.keep_dims
            before, left = left, kept(left, step.keep_dims)
            assert left <= before
        assert left == kept(width, share)


def test_more_steps_than_layers_or_epochs_are_no_mistake() -> None:
    structured = StructuredSequence(keep_layers=2, steps=4, recovery=Training(epochs=3))
    found = [(step.keep_layers, step.recovery.epochs) for step, _ in gradually(structured, encoder(3, 2, 8, 4))]
    assert found == [(3, 0), (3, 1), (2, 1), (2, 1)]  # halves to even


def test_defaults_are_not_written_so_that_keys_stay() -> None:
    for entry in (StructuredSequence(), StructuredText()):
        assert not {"steps", "keep_dims"} & set(entry.model_dump())
    written = StructuredSequence(steps=2, keep_dims=0.5).model_dump()
    assert (written["steps"], written["keep_dims"]) == (2, 0.5)
    for wrong in ({"steps": 0}, {"keep_dims": 0.0}, {"keep_dims": 1.5}):
        with pytest.raises(ValidationError):
            StructuredSequence.model_validate(wrong)


# Imports once, then forks: a child is killed in the second step's training, the next goes on, the last is undisturbed.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from compress.pipeline import BY_NAME
from compress.prune.prune import PruneConfig
from compress.stage import RunOptions
from compress.store import Artifact, Store

folder, data, mix, cases = sys.argv[1:]

def build(store, distil, config, killed_in):
    paths = {"data": data, "mix": mix, "distil": distil}
    inputs = {name: Artifact(Path(path), name, 0.0, True, 0.0) for name, path in paths.items()}
    said = []
    def progress(items, what, _total):
        said.append(f"{what}: {len(items)} epochs")
        for number in items:
            if what == killed_in and number == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    child = os.fork()
    if child == 0:
        options = RunOptions(threads=1, checkpoint_seconds=0.0, log=said.append, progress=progress)
        Store(Path(folder, store)).get_or_build(BY_NAME["prune"], PruneConfig.model_validate(config), inputs, options)
        Path(folder, store + ".said").write_text("\\n".join(said))
        os._exit(0)
    return os.waitpid(child, 0)[1]

for part, distil, config, killed_in in json.loads(cases):
    print(*(build(part + store, distil, config, kill) for store, kill in (("1", killed_in), ("1", ""), ("2", ""))))
"""


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
def test_a_killed_stage_goes_on_at_its_step_and_ends_in_the_same_bytes(
    film_inputs: dict[str, Path], film_teacher: dict[str, Path], tmp_path: Path
) -> None:
    cut = {"name": "structured", "keep_neurons": 0.5, "steps": 2, "recovery": {"epochs": 4}}
    cases, names = [], {"sequence": "recover", "text": "recover text"}
    for part, chain in (("sequence", "student:student:0"), ("text", "text_encoder:text:0")):
        config = {"sequence": "none", "text": "none", part: cut | ({"keep_dims": 0.5} if part == "sequence" else {})}
        cases.append((part, str(film_inputs[f"distil/{chain}"]), config, f"{names[part]}, step 2 of 2"))
    arguments = [str(tmp_path), str(film_inputs["data"]), str(film_teacher["target"]), json.dumps(cases)]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    assert list(map(int, done.stdout.split())) == [signal.SIGKILL, 0, 0] * 2, done.stderr
    for part, name in names.items():
        again, whole = ((tmp_path / f"{part}{store}.said").read_text() for store in "12")
        # the first step's training is found whole, the second's after its first epoch
        for said, left in ((whole, (2, 2)), (again, (0, 1))):
            trained = [f"{name}, step {step} of 2: {epochs} epochs" for step, epochs in enumerate(left, 1)]
            assert [line for line in said.splitlines() if line.endswith("epochs")] == trained
        (one,), (two,) = (list(Store(tmp_path / f"{part}{store}").entries()) for store in "12")
        assert one[1]["digest"] == two[1]["digest"]
