"""The stage `prune`: smaller, still exportable models whose quality a short training brings back."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.data.dataset import Dataset
from compress.distil.distil import DistilConfig, distil, text_space
from compress.distil.texts import TextReader, item_texts
from compress.models.folder import load_array, load_sequence, load_text, model_facts, read_json, write_model
from compress.models.sequence import SequenceModel
from compress.models.text import TextEncoder
from compress.pack import fold_map
from compress.prune.prune import PruneConfig, prune
from compress.prune.table import cut_table
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.teacher.backbone import RandomBert
from compress.training import validation_ndcg
from deploy.text import TextEncoder as GraphTextEncoder

Run = Callable[..., Path]
CRITERIA = pytest.mark.parametrize("criterion", ["magnitude", "first_order", "fisher", "activation"])
STUDENT, TEXT, CONTROL = "distil/student:student:0", "distil/text_encoder:text:0", "distil/control:control:0"


@pytest.fixture(scope="module")
def pruned(build: Run, film_data: Path, film_teacher: dict[str, Path], film_inputs: dict[str, Path]) -> Run:
    """pruned(which model, part=its settings) -> the pruned model's folder; `none` for what is not named."""

    def run(model: str, **parts: Any) -> Path:
        named = {part: {"name": "structured", **settings} for part, settings in parts.items()}
        config = PruneConfig.model_validate({"sequence": "none", "text": "none"} | named)
        return build(prune, config, data=film_data, mix=film_teacher["target"], distil=film_inputs[model])

    return run


def sequence_of(folder: Path) -> SequenceModel:
    model = load_sequence(folder)
    assert model is not None
    return model


def text_of(folder: Path) -> TextEncoder:
    encoder = load_text(folder)
    assert encoder is not None
    return encoder


def size(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def block_size(dim: int, head_dim: int, heads: int, neurons: int, max_history: int) -> int:
    inner = heads * head_dim
    attention = 3 * (dim * inner + inner) + inner * dim + dim + heads * max_history
    return attention + dim * neurons + neurons + neurons * dim + dim + 4 * dim


@CRITERIA
def test_a_sequence_models_shapes_shrink_and_training_brings_quality_back(
    pruned: Run, film_inputs: dict[str, Path], film_dataset: Dataset, criterion: str
) -> None:
    cut: dict[str, Any] = {"criterion": criterion, "keep_layers": 1, "keep_heads": 0.5, "keep_neurons": 0.25}
    bare = pruned(CONTROL, sequence=cut | {"recovery": {"epochs": 0}})
    recovery = {"epochs": 12, "learning_rate": 5e-3, "warmup_epochs": 0}
    recovered = pruned(CONTROL, sequence=cut | {"recovery": recovery})
    before = sequence_of(film_inputs[CONTROL])
    assert size(before.encoder) == 2 * block_size(8, 4, 2, 16, 10) + 2 * 8
    for folder in (bare, recovered):
        model = sequence_of(folder)
        ((heads, neurons),) = {(block.heads, block.neurons) for block in model.shape.blocks}
        assert (len(model.shape.blocks), heads, neurons) == (1, 1, 4)
        assert size(model.encoder) == block_size(8, 4, 1, 4, 10) + 2 * 8
        assert model.item_table.shape == before.item_table.shape
        quality = read_json(folder / "metrics.json")["valid_ndcg@10"]
        assert validation_ndcg(model, film_dataset) == pytest.approx(quality)
    torch.testing.assert_close(sequence_of(bare).item_table, before.item_table, atol=1e-5, rtol=0)
    quality = [read_json(folder / "metrics.json")["valid_ndcg@10"] for folder in (bare, recovered)]
    assert quality[1] > quality[0]


def test_a_recovery_that_only_hurts_changes_nothing(pruned: Run) -> None:
    bare = pruned(CONTROL, sequence={"recovery": {"epochs": 0}})
    hurt = pruned(CONTROL, sequence={"recovery": {"epochs": 2, "learning_rate": 30.0, "warmup_epochs": 0}})
    for file in ("metrics.json", "valid_ranks.npy", "sequence/model.safetensors"):
        assert (hurt / file).read_bytes() == (bare / file).read_bytes()


def test_what_folds_texts_into_the_students_items_stays(
    pruned: Run, film_teacher: dict[str, Path], film_dataset: Dataset
) -> None:
    """After recovery the map has moved, and cold items are still text through it."""
    folder = pruned(STUDENT, sequence={"recovery": {"epochs": 2}})
    vectors, text_map = load_array(film_teacher["target"], "item_vectors"), load_array(folder, "text_map")
    assert vectors is not None and text_map is not None
    cold = film_dataset.cold_items
    table = sequence_of(folder).item_table.detach()
    torch.testing.assert_close(
        table[torch.from_numpy(cold).long()], torch.from_numpy(vectors[cold] @ text_map), atol=1e-5, rtol=1e-5
    )
    assert not table[0].any()
    assert model_facts(folder)["text_space"] == text_space(film_teacher["target"])


def test_an_item_table_loses_dimensions_and_texts_follow_into_what_is_left(
    pruned: Run, film_teacher: dict[str, Path], film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    cut: dict[str, Any] = {"keep_dims": 0.25, "keep_neurons": 1.0}
    bare = pruned(STUDENT, sequence=cut | {"recovery": {"epochs": 0}})
    recovered = pruned(STUDENT, sequence=cut | {"recovery": {"epochs": 8, "learning_rate": 5e-3}})
    vectors, cold = load_array(film_teacher["target"], "item_vectors"), film_dataset.cold_items
    assert vectors is not None
    for folder in (bare, recovered):
        model, text_map = sequence_of(folder), load_array(folder, "text_map")
        assert text_map is not None and text_map.shape == (16, 2)
        assert model.item_table.shape == (film_dataset.n_items + 1, 2)
        assert (model.shape.dim, model.shape.table_dim) == (8, 2)
        table = model.item_table.detach()[torch.from_numpy(cold).long()]
        torch.testing.assert_close(table, torch.from_numpy(vectors[cold] @ text_map), atol=1e-5, rtol=1e-5)
        quality = read_json(folder / "metrics.json")["valid_ndcg@10"]
        assert validation_ndcg(model, film_dataset) == pytest.approx(quality)
    expected, _ = cut_table(
        sequence_of(film_inputs[STUDENT]),
        load_array(film_inputs[STUDENT], "text_map"),
        film_dataset.popularity,
        2,
        nested=False,
    )
    histories = torch.tensor([[3, 5, 1]])
    torch.testing.assert_close(sequence_of(bare).scores(histories), expected.scores(histories), atol=1e-4, rtol=1e-4)
    before, after = (sequence_of(folder).encoder.state_dict() for folder in (bare, recovered))
    assert all(not torch.equal(before[name], after[name]) for name in ("lift.weight", "project.weight"))
    quality = [read_json(folder / "metrics.json")["valid_ndcg@10"] for folder in (bare, recovered)]
    assert quality[1] > quality[0]


def test_a_narrow_students_graphs_and_bundle_are_as_wide_as_its_table(
    build: Run, pruned: Run, film_inputs: dict[str, Path], film_dataset: Dataset
) -> None:
    folder = pruned(STUDENT, sequence={"keep_dims": 0.5, "recovery": {"epochs": 1}})
    graphs = build(quantize, QuantizeConfig(), data=film_inputs["data"], prune=folder)
    facts, parity = read_json(graphs / "candidate.json"), read_json(graphs / "parity.json")
    assert facts["dim"] == 4
    assert parity["history.fp32.onnx"]["top10_overlap"] == 1.0
    text_map = load_array(folder, "text_map")
    assert text_map is not None
    text = film_inputs["quantize/text_encoder:text:0"]
    onnx.save(fold_map(onnx.load(text / "text.fp32.onnx"), text_map), graphs / "text.onnx")
    encoder = text_of(film_inputs["prune/text_encoder:text:0"])
    vectors = GraphTextEncoder(graphs / "text.onnx", text / "tokenizer.json", 16).encode(film_dataset.texts[:5])
    assert vectors.shape == (5, facts["dim"])
    torch.testing.assert_close(vectors, encoder.encode(film_dataset.texts[:5]) @ text_map, atol=1e-4, rtol=1e-4)


def test_gradual_pruning_ends_in_the_same_shapes(pruned: Run, film_inputs: dict[str, Path]) -> None:
    cut: dict[str, Any] = {"keep_layers": 1, "keep_heads": 0.5, "keep_neurons": 0.25}
    for model, part, loaded in ((STUDENT, "sequence", sequence_of), (TEXT, "text", text_of)):
        own = cut | ({"keep_dims": 0.5} if part == "sequence" else {})
        once = pruned(model, **{part: own | {"recovery": {"epochs": 2}}})
        thrice = pruned(model, **{part: own | {"steps": 3, "recovery": {"epochs": 3}}})
        assert loaded(thrice).shape == loaded(once).shape
        assert size(loaded(thrice)) == size(loaded(once)) < size(loaded(film_inputs[model]))


def test_a_control_is_pruned_without_a_teacher(
    build: Run, film_data: Path, film_inputs: dict[str, Path], tmp_path: Path
) -> None:
    config = PruneConfig.model_validate({"sequence": {"name": "structured", "recovery": {"epochs": 1}}})
    folder = build(prune, config, data=film_data, mix=tmp_path, distil=film_inputs[CONTROL])
    assert [block.neurons for block in sequence_of(folder).shape.blocks] == [8, 8]
    assert model_facts(folder) == {"parts": ["sequence"], "text_space": None}


@CRITERIA
def test_a_text_encoder_loses_layers_heads_neurons_and_words_and_recovers(
    pruned: Run, film_inputs: dict[str, Path], film_data: Path, film_teacher: dict[str, Path], criterion: str
) -> None:
    cut: dict[str, Any] = {"criterion": criterion, "keep_layers": 1, "keep_heads": 0.5, "keep_neurons": 0.25}
    bare = pruned(TEXT, text=cut | {"recovery": {"epochs": 0}})
    recovered = pruned(TEXT, text=cut | {"recovery": {"epochs": 10}})
    before = text_of(film_inputs[TEXT])
    for folder in (bare, recovered):
        encoder = text_of(folder)
        assert [(layer.heads, layer.neurons) for layer in encoder.shape.layers] == [(2, 16)]
        # attention: 3 to 16 wide, 1 back; feed-forward 16 wide; two norms
        layer = 3 * (32 * 16 + 16) + 16 * 32 + 32 + 32 * 16 + 16 + 16 * 32 + 32 + 4 * 32
        assert size(encoder.layers) == layer
        assert encoder.lm.config.vocab_size == encoder.tokenizer.get_vocab_size()
        assert encoder.dim == before.dim
        teacher, texts = text_of(film_teacher["target"]), item_texts(film_data, TextReader())
        squares = (encoder.encode(texts.held_out) - teacher.encode(texts.held_out)) ** 2
        unexplained = float(squares.mean() / teacher.encode(texts.items).var(0).mean())
        assert read_json(folder / "metrics.json")["unexplained_variance"] == pytest.approx(unexplained, rel=1e-3)
        assert model_facts(folder)["text_space"] == text_space(film_teacher["target"])
    errors = [read_json(folder / "metrics.json")["unexplained_variance"] for folder in (bare, recovered)]
    assert errors[1] < errors[0]


@pytest.mark.parametrize("losses", ["vector_mse", ["vector_mse", "hidden_states", "attention_relations"]])
def test_a_text_encoder_narrows_recovers_and_is_exported(
    build: Run, pruned: Run, film_data: Path, film_inputs: dict[str, Path], film_dataset: Dataset, losses: Any
) -> None:
    cut: dict[str, Any] = {"keep_heads": 1.0, "keep_neurons": 1.0, "keep_hidden": 0.5, "embedding_rank": 6}
    cut |= {"keep_layers": 1, "layers_by": "block_influence", "loss": losses}
    bare = pruned(TEXT, text=cut | {"recovery": {"epochs": 0}})
    recovered, again = (pruned(TEXT, text=cut | {"recovery": {"epochs": 10}}) for _ in range(2))
    for file in ("text/model.safetensors", "text/head.safetensors", "text/shapes.json", "metrics.json"):
        assert (recovered / file).read_bytes() == (again / file).read_bytes()
    encoder, before = text_of(recovered), text_of(film_inputs[TEXT])
    assert (encoder.hidden_size, before.hidden_size, encoder.dim) == (16, 32, before.dim)
    assert encoder.word_table.weight.shape == (encoder.tokenizer.get_vocab_size(), 6)
    assert torch.equal(encoder.word_table.weight, text_of(bare).word_table.weight)
    errors = [read_json(folder / "metrics.json")["unexplained_variance"] for folder in (bare, recovered)]
    assert errors[1] < errors[0]
    graphs = build(quantize, QuantizeConfig(history=(), text=()), data=film_data, prune=recovered)
    served = GraphTextEncoder(graphs / "text.fp32.onnx", graphs / "tokenizer.json", 16).encode(film_dataset.texts)
    assert served == pytest.approx(encoder.encode(film_dataset.texts), abs=1e-4)


def test_a_recovery_that_only_hurts_a_narrowed_encoder_changes_nothing(pruned: Run) -> None:
    cut: dict[str, Any] = {"keep_heads": 1.0, "keep_neurons": 1.0, "keep_hidden": 0.75}
    bare = pruned(TEXT, text=cut | {"recovery": {"epochs": 0}})
    hurt = pruned(TEXT, text=cut | {"recovery": {"epochs": 1, "learning_rate": 10.0}})
    for file in ("metrics.json", "text/model.safetensors", "text/head.safetensors"):
        assert (hurt / file).read_bytes() == (bare / file).read_bytes()


def test_only_words_that_no_text_of_any_domain_uses_are_dropped(
    build: Run, film_data: Path, film_teacher: dict[str, Path], tmp_path: Path
) -> None:
    texts, strange = item_texts(film_data, TextReader()).items, ["zigzagging", "xylophones"]
    encoder = RandomBert(layers=1)([*texts, *strange, *strange], 16, 0)
    encoder.head = nn.Linear(encoder.hidden_size, 16, bias=False)
    write_model(tmp_path, text=encoder)
    words = set(encoder.tokenizer.get_vocab())
    assert words >= set(strange)
    found = {}
    for vocabulary in (True, False):
        cut = {"name": "structured", "keep_heads": 1.0, "keep_neurons": 1.0, "vocabulary": vocabulary}
        config = PruneConfig.model_validate({"text": cut | {"recovery": {"epochs": 0}}})
        pruned = text_of(build(prune, config, data=film_data, mix=film_teacher["target"], distil=tmp_path))
        assert pruned.encode(texts) == pytest.approx(encoder.encode(texts), abs=1e-5)
        found[vocabulary] = set(pruned.tokenizer.get_vocab())
        assert size(pruned) == size(encoder) - encoder.hidden_size * (len(words) - len(found[vocabulary]))
    assert found[False] == words
    assert words - found[True] == set(strange)


def test_none_hands_the_model_on(
    pruned: Run, film_inputs: dict[str, Path], files_of: Callable[[Path], list[Path]]
) -> None:
    for which in (STUDENT, TEXT):
        given, folder = film_inputs[which], pruned(which)
        files = files_of(given)
        assert files_of(folder) == files
        assert all((folder / f).read_bytes() == (given / f).read_bytes() for f in files)


def test_pruning_is_deterministic(pruned: Run) -> None:
    one, two = (pruned(STUDENT, sequence={"recovery": {"epochs": 1}}) for _ in range(2))
    for file in ("sequence/model.safetensors", "text_map.npy", "valid_ranks.npy", "metrics.json", "model.json"):
        assert (one / file).read_bytes() == (two / file).read_bytes()


def test_a_student_without_id_vectors_stays_one(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> None:
    """Recovery trains the map and the encoder alone: every row of the table is still its text through the map."""
    student = {"name": "sequence", "dim": 8, "heads": 2, "neurons": 16, "max_history": 10, "id_vectors": False}
    training = {"epochs": 2, "warmup_epochs": 0}
    config = DistilConfig.model_validate({"student": student, "training": training})
    distilled = build(distil, config, data=film_data, mix=film_teacher["target"])
    cut = {"name": "structured", "recovery": {"epochs": 2}}
    pruned = build(
        prune,
        PruneConfig.model_validate({"sequence": cut}),
        data=film_data,
        mix=film_teacher["target"],
        distil=distilled,
    )
    for folder in (distilled, pruned):
        model, text_map = load_sequence(folder), load_array(folder, "text_map")
        vectors = load_array(film_teacher["target"], "item_vectors")
        assert model is not None and text_map is not None and vectors is not None
        np.testing.assert_allclose(model.item_table.detach().numpy(), vectors @ text_map, atol=1e-5)
        assert model_facts(folder)["id_vectors"] is False
