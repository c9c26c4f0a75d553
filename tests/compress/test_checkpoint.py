"""Training that dies goes on after its last checkpoint and ends in the same bytes."""

import hashlib
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compress.distil.distil import DistilConfig, distil
from compress.stage import RunOptions, StageConfig
from compress.store import Store
from compress.teacher.pretrain import PretrainConfig, pretrain
from compress.teacher.transfer import SourceConfig, train_source
from compress.training import Fit, Training, fit, seed_everything


class DiedError(Exception):
    """Stands for a kill: nothing in the code under test catches it."""


def dying(after: int, options: RunOptions) -> RunOptions:
    """Options under which training dies when the epoch after `after` starts."""

    def progress(items: Any, _what: str, _total: int | None) -> Iterator[Any]:
        for number in items:
            if number > after:
                raise DiedError
            yield number

    return replace(options, progress=progress)


def contents(folder: Path) -> dict[str, str]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(f.relative_to(folder)): hashlib.sha256(f.read_bytes()).hexdigest() for f in files}


TRAINING = {"epochs": 6, "warmup_epochs": 0, "learning_rate": 5e-3}
SIZES = {"dim": 16, "heads": 2, "neurons": 16, "max_history": 10}
STUDENT_CONFIG = DistilConfig.model_validate(
    {"student": {"name": "sequence", **SIZES}, "training": TRAINING | {"validate_every": 2}}
)
TEACHER_CONFIG = SourceConfig.model_validate(
    {
        "method": {
            "name": "two_level",
            **SIZES,
            "frozen_epochs": 1,
            "text_epochs": 2,
            "texts_per_step": 16,
            "trained_layers": 1,
            "training": TRAINING | {"softmax": {"name": "sampled", "negatives": 8}},
        }
    }
)


TEXT_CONFIG = DistilConfig.model_validate({"student": {"name": "text", "layers": 1, "training": {"epochs": 6}}})
PRETRAIN_CONFIG = PretrainConfig.model_validate(
    {"backbone": {"name": "random", "layers": 2}, "objective": {"name": "masked_lm", "epochs": 6}, "max_tokens": 16}
)


@pytest.mark.parametrize(
    ("stage", "config"),
    [(distil, STUDENT_CONFIG), (train_source, TEACHER_CONFIG), (distil, TEXT_CONFIG), (pretrain, PRETRAIN_CONFIG)],
    ids=["student", "teacher", "text", "pretrain"],
)
@pytest.mark.parametrize("after", [1, 3, 4])
def test_a_stage_that_died_ends_in_the_same_files(
    film_data: Path,
    film_teacher: dict[str, Path],
    tmp_path: Path,
    stage: Callable[..., None],
    config: StageConfig,
    after: int,
) -> None:
    """The teacher dies while its LM moves (epochs 2 and 3) and afterwards."""
    inputs = {"data": film_data, "mix": film_teacher["target"], "pretrain": film_teacher["pretrain"]}
    for name in ("whole", "cut", "scratch"):
        (tmp_path / name).mkdir()
    stage(config, inputs, tmp_path / "whole", RunOptions(threads=1))
    said: list[str] = []
    options = RunOptions(threads=1, scratch=tmp_path / "scratch", checkpoint_seconds=0.0, log=said.append)
    with pytest.raises(DiedError):
        stage(config, inputs, tmp_path / "cut", dying(after, options))
    assert len(list((tmp_path / "scratch").iterdir())) == 1
    stage(config, inputs, tmp_path / "cut", options)
    assert f"goes on after epoch {after}" in said
    assert contents(tmp_path / "cut") == contents(tmp_path / "whole")


class Noisy(nn.Module):
    """Moves by what torch and numpy draw."""

    def __init__(self) -> None:
        super().__init__()
        self.place = nn.Parameter(torch.zeros(3))
        self.frozen = nn.Parameter(torch.ones(2), requires_grad=False)
        self.register_buffer("seen", torch.zeros(1))


def train(
    options: RunOptions, values: list[float], epochs: int = 6, patience: int = 10
) -> tuple[Fit, dict[str, Tensor]]:
    rng, module = seed_everything(3, RunOptions()), Noisy()

    def epoch(_number: int) -> Iterator[Tensor]:
        for _ in range(2):
            module.seen += 1
            yield (module.place * torch.randn(3) * rng.normal()).sum()

    training = Training(epochs=epochs, validate_every=1, warmup_epochs=0, patience=patience)
    found = fit(
        module, [([module.place], 1.0)], training, epoch, lambda number: values[number], options, "noisy", rng=rng
    )
    return found, module.state_dict()


VALUES = [0.0, 0.3, 0.5, 0.1, 0.2, 0.1, 0.4]


@pytest.mark.parametrize("after", range(1, 6))
def test_best_state_curve_and_random_states_go_on(tmp_path: Path, after: int) -> None:
    whole, state = train(RunOptions(), VALUES)
    options = RunOptions(scratch=tmp_path, checkpoint_seconds=0.0)
    with pytest.raises(DiedError):
        train(dying(after, options), VALUES)
    # validations up to the checkpoint are not asked again: they would be nonsense now
    again, resumed = train(options, [9.0] * (after + 1) + VALUES[after + 1 :])
    assert again.curve[1:] == whole.curve[1:]
    assert (again.best, again.best_epoch) == (whole.best, whole.best_epoch) == (0.5, 2)
    assert all(torch.equal(resumed[name], state[name]) for name in state)


def test_patience_that_ran_out_before_the_kill_still_ends_training(tmp_path: Path) -> None:
    options = RunOptions(scratch=tmp_path, checkpoint_seconds=0.0)
    whole, _ = train(options, VALUES, patience=2)
    again, _ = train(options, [9.0] * 7, patience=2)
    assert len(whole.curve) == len(again.curve) == 5


def test_only_the_same_training_goes_on(tmp_path: Path) -> None:
    options = RunOptions(scratch=tmp_path, checkpoint_seconds=0.0)
    train(options, VALUES, epochs=3)
    other, _ = train(options, VALUES, epochs=4)
    assert [number for number, _, _ in other.curve] == [0, 1, 2, 3, 4]
    assert other.curve[1][2] == 0.3
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_or_foreign_file_is_not_run_and_training_starts_over(tmp_path: Path) -> None:
    options = RunOptions(scratch=tmp_path, checkpoint_seconds=0.0)
    whole, state = train(options, VALUES)
    (path,) = tmp_path.iterdir()
    marker = tmp_path / "marker"

    class Touch:
        def __reduce__(self) -> Any:
            return (Path.touch, (marker,))

    torch.save({"module": Touch()}, path)
    foreign = path.read_bytes()
    for content in (b"", b"not a checkpoint", foreign):
        path.write_bytes(content)
        said: list[str] = []
        again, resumed = train(replace(options, log=said.append), VALUES)
        assert any("not readable" in line for line in said)
        assert again.curve[1:] == whole.curve[1:]
        assert all(torch.equal(resumed[name], state[name]) for name in state)
    assert not marker.exists()


def test_checkpoints_wait_their_time_and_need_a_folder(tmp_path: Path) -> None:
    train(RunOptions(scratch=tmp_path), VALUES)  # much faster than the pause
    assert not list(tmp_path.iterdir())
    train(RunOptions(checkpoint_seconds=0.0), VALUES)


# Imports once, then forks: a child is killed in its fourth epoch, the next goes on, the last runs undisturbed.
SCRIPT = """
import os, signal, sys
from pathlib import Path
from compress.distil.distil import DistilConfig
from compress.pipeline import BY_NAME
from compress.stage import RunOptions
from compress.store import Artifact, Store

folder, data, mix, config = sys.argv[1:]
inputs = {name: Artifact(Path(path), name, 0.0, True, 0.0) for name, path in (("data", data), ("mix", mix))}

def build(store, kill_at):
    def progress(items, _what, _total):
        for number in items:
            if number == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)
            yield number

    child = os.fork()
    if child == 0:
        said = []
        options = RunOptions(threads=1, checkpoint_seconds=0.0, log=said.append, progress=progress)
        stage, wanted = BY_NAME["distil"], DistilConfig.model_validate_json(config)
        Store(Path(folder, store)).get_or_build(stage, wanted, inputs, options)
        os._exit("goes on after epoch 3" in said)
    return os.waitpid(child, 0)[1]

statuses = [build("killed", 4)]
print(len(list(Path(folder, "killed").glob("distil/*.partial/scratch/*.checkpoint"))))
statuses += [build("killed", 0), build("whole", 0)]
print(*statuses)
"""


@pytest.mark.skipif(os.name != "posix", reason="fork and SIGKILL")
def test_a_stage_killed_inside_the_store_goes_on(
    film_data: Path, film_teacher: dict[str, Path], tmp_path: Path
) -> None:
    arguments = [str(tmp_path), str(film_data), str(film_teacher["target"]), STUDENT_CONFIG.model_dump_json()]
    command = [sys.executable, "-c", SCRIPT, *arguments]
    done = subprocess.run(command, cwd=Path(__file__).parents[2], capture_output=True, text=True, timeout=300)
    checkpoints, *statuses = done.stdout.split()
    assert int(checkpoints) == 1
    # killed; went on after epoch 3 (exit code 1 says so); undisturbed
    assert list(map(int, statuses)) == [signal.SIGKILL, 1 << 8, 0], done.stderr
    (one,), (two,) = (list(Store(tmp_path / name).entries()) for name in ("killed", "whole"))
    assert one[1]["digest"] == two[1]["digest"]
    assert not list((tmp_path / "killed").glob("distil/*.partial"))
