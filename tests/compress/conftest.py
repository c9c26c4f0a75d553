"""A small world of films and one chain of every role through it, built once: what the tests of the stages look at."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import AutoConfig, AutoModel

from compress.baselines.run import BaselinesConfig, train_baselines
from compress.bench import BenchConfig, bench
from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data
from compress.distil.distil import DistilConfig, distil
from compress.models.folder import read_json
from compress.pipeline import STAGES
from compress.prune.prune import PruneConfig, prune
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.stage import RunOptions, StageConfig
from compress.store import SEAL, write_seal
from compress.teacher.pretrain import PretrainConfig, pretrain
from compress.teacher.transfer import SourceConfig, TargetConfig, train_source, train_target

WORLD = {"name": "synthetic", "items": 80, "users": 80}
TEXT = "{movie_title}. {class}, {release_year}"
TRAINING = {"epochs": 6, "warmup_epochs": 0, "learning_rate": 5e-3}
TWO_LEVEL = {
    "name": "two_level",
    "dim": 16,
    "blocks": 1,
    "heads": 2,
    "neurons": 32,
    "max_history": 10,
    "frozen_epochs": 1,
    "texts_per_step": 16,
    "trained_layers": 1,
    "training": TRAINING,
}
STUDENT = {"dim": 8, "blocks": 2, "heads": 2, "neurons": 16, "max_history": 10}
PER_ROW = [{"name": "int8_per_row"}]

Run = Callable[..., Path]


@pytest.fixture(scope="session")
def build(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """build(stage function, config, **inputs) -> the folder it wrote, a stage's sealed as a run seals it."""
    stages = {stage.run: stage for stage in STAGES}

    def run(stage: Callable[..., None], config: StageConfig, **inputs: Path) -> Path:
        out = tmp_path_factory.mktemp(stage.__name__)
        stage(config, inputs, out, RunOptions(threads=1))
        sealed = {name: read_json(path / SEAL)["digest"] for name, path in inputs.items() if (path / SEAL).is_file()}
        if stage in stages:
            write_seal(out, stages[stage], config, sealed, seconds=0.0, peak_mb=0.0)
        return out

    return run


@pytest.fixture(scope="session")
def files_of() -> Callable[[Path], list[Path]]:
    """files_of(folder) -> what a stage wrote, by relative path, its seal left out."""

    def found(folder: Path) -> list[Path]:
        return sorted(p.relative_to(folder) for p in folder.rglob("*") if p.is_file() and p.name != SEAL)

    return found


@pytest.fixture(scope="session")
def film_data(build: Run) -> Path:
    """A `data` artifact: `source` (Action), `target` (Drama), 40 films each, a tenth of them cold."""
    domains = {
        name: {"from": WORLD, "items": {"class": [genre]}, "text": TEXT}
        for name, genre in (("source", "Action"), ("target", "Drama"))
    }
    return build(load_data, DataConfig.model_validate({"domains": domains, "cold_fraction": 0.1}))


@pytest.fixture(scope="session")
def film_dataset(film_data: Path) -> Dataset:
    return Dataset.open(film_data)


@pytest.fixture(scope="session")
def film_teacher(build: Run, film_data: Path) -> dict[str, Path]:
    """The teacher's model folders: `pretrain`, `source`, `target`."""
    objective = {"name": "masked_lm", "epochs": 8, "learning_rate": 2e-3, "batch_size": 16}
    settings = {"backbone": {"name": "random", "layers": 3}, "objective": objective, "max_tokens": 16}
    made = {"pretrain": build(pretrain, PretrainConfig.model_validate(settings), data=film_data)}
    made["source"] = build(
        train_source, SourceConfig.model_validate({"method": TWO_LEVEL}), data=film_data, pretrain=made["pretrain"]
    )
    target = TargetConfig.model_validate({"method": TWO_LEVEL, "cached_scores": 10})
    made["target"] = build(train_target, target, data=film_data, source=made["source"])
    return made


@pytest.fixture(scope="session")
def film_inputs(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> dict[str, Path]:
    """What the gathering stages get: `data`, `baselines`, the teacher's stages, and what followed of four chains."""
    made = {"data": film_data, "baselines": build(train_baselines, BaselinesConfig(), data=film_data)}
    made |= {f"{stage}/teacher:teacher:0": folder for stage, folder in film_teacher.items()}
    made["pretrain/control:control:0"] = nothing = build(
        pretrain, PretrainConfig.model_validate("none"), data=film_data
    )
    text = {"name": "text", "layers": 2, "training": {"epochs": 10}}
    chains: list[tuple[str, Path, Any, Any, Any]] = [
        ("control:control:0", nothing, {"student": STUDENT, "training": TRAINING}, "none", {"history": PER_ROW}),
        ("teacher:teacher:0", film_teacher["target"], "none", "none", "none"),
        ("text_encoder:text:0", film_teacher["target"], {"student": text}, {"text": {"recovery": {"epochs": 5}}}, {}),
        (
            "student:student:0",
            film_teacher["target"],
            {"student": STUDENT, "training": TRAINING},
            {"sequence": {"keep_layers": 1, "recovery": {"epochs": 2}}},
            {},
        ),
    ]
    for chain, target, distilled, pruned, quantized in chains:
        if isinstance(pruned, dict):
            pruned = {part: {"name": "structured", **settings} for part, settings in pruned.items()}
        if "student" in distilled and "name" not in distilled["student"]:
            distilled = {**distilled, "student": {"name": "sequence", **distilled["student"]}}
        folder = build(distil, DistilConfig.model_validate(distilled), data=film_data, mix=target)
        made[f"distil/{chain}"] = folder
        folder = build(prune, PruneConfig.model_validate(pruned), data=film_data, mix=target, distil=folder)
        made[f"prune/{chain}"] = folder
        folder = build(quantize, QuantizeConfig.model_validate(quantized), data=film_data, prune=folder)
        made[f"quantize/{chain}"] = folder
    return made


@pytest.fixture(scope="session")
def film_bench(build: Run, film_inputs: dict[str, Path]) -> Path:
    """What `bench` measured of them, in few runs; the control is there with a second seed too."""
    again = {f"{stage}/control:control:1": film_inputs[f"{stage}/control:control:0"] for stage in ("prune", "quantize")}
    config = BenchConfig(history=6, k=5, min_runs=12, min_seconds=5.0, rounds=3)
    return build(bench, config, **film_inputs, **again)


@pytest.fixture(scope="session")
def byte_tokenizer() -> Callable[[], Tokenizer]:
    """Every byte is a token, and " t"; id 0 ends a text and pads. Nothing is added to a text, as SmolLM2 has it."""

    def made() -> Tokenizer:
        tokens = ["<|end|>", *sorted(pre_tokenizers.ByteLevel.alphabet()), "Ġt"]
        tokenizer = Tokenizer(models.BPE({token: index for index, token in enumerate(tokens)}, merges=[("Ġ", "t")]))
        tokenizer.pre_tokenizer, tokenizer.decoder = (
            pre_tokenizers.ByteLevel(add_prefix_space=False),
            decoders.ByteLevel(),
        )
        tokenizer.add_special_tokens(["<|end|>"])
        return tokenizer

    return made


@pytest.fixture(scope="session")
def lm_folder(tmp_path_factory: pytest.TempPathFactory, byte_tokenizer: Callable[[], Tokenizer]) -> Callable[..., Path]:
    """lm_folder(model_type, **config) -> a small model of three layers as Hugging Face's `save_pretrained` leaves it.

    Decoders have four query heads over two of keys and values. Weights are large enough for differences to show.
    """
    sizes = {"vocab_size": 258, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 3}
    sizes |= {"num_attention_heads": 4, "max_position_embeddings": 132, "pad_token_id": 0, "eos_token_id": 0}
    decoder: dict[str, Any] = {
        "num_key_value_heads": 2,
        "head_dim": 8,
        "bos_token_id": None,
        "tie_word_embeddings": True,
    }

    def made(model_type: str, **more: Any) -> Path:
        own = {} if "bert" in model_type else decoder
        torch.manual_seed(0)
        lm = AutoModel.from_config(AutoConfig.for_model(model_type, **(sizes | own | more)))
        with torch.no_grad():
            for parameter in lm.parameters():
                if parameter.ndim > 1:
                    parameter.normal_(std=0.3)
        folder = tmp_path_factory.mktemp(model_type)
        lm.save_pretrained(folder)
        (folder / "tokenizer.json").write_text(byte_tokenizer().to_str(), "utf-8")
        return folder

    return made
