"""The static text student: a table of tokens, near its teacher, pruned, exported and served like any text encoder."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from compress.distil.distil import DistilConfig, distil, teacher_text, text_space
from compress.distil.ridge import chosen_strengths, fitted, mapped_rows, own_changes, principal_axes
from compress.distil.static import Sif, StaticStudent, Zipf, distil_static, token_shares, token_vectors
from compress.distil.texts import TextReader, item_texts, parted
from compress.models.folder import load_item_encoder, model_facts, read_json
from compress.models.static import StaticEncoder, StaticShape
from compress.pack import fold_map
from compress.prune.prune import PruneConfig, prune
from compress.prune.vocabulary import prune_vocabulary
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.stage import RunOptions, Skip
from compress.teacher.backbone import RandomBert, load_backbone
from deploy.errors import UsageError
from deploy.text import TextEncoder

Run = Callable[..., Path]
STUDENTS = [
    StaticStudent(),
    StaticStudent(dim=6),
    StaticStudent(weighting=Sif()),
    StaticStudent(weighting=Skip(), dim=3),
    StaticStudent(weighting=Sif(), fit=Skip()),
]
OPTIONS = RunOptions(threads=1)


def name_of(student: StaticStudent) -> str:
    return f"{student.weighting.name}-{student.fit.name}-{student.dim}"


@pytest.fixture(scope="module")
def made(build: Run, film_data: Path, film_teacher: dict[str, Path]) -> Callable[[StaticStudent], dict[str, Path]]:
    """made(student) -> the folders of distil, prune and quantize; each student once."""
    found: dict[str, dict[str, Path]] = {}

    def run(student: StaticStudent) -> dict[str, Path]:
        key = student.model_dump_json()
        if key not in found:
            teacher = film_teacher["target"]
            whole = build(distil, DistilConfig(student=student), data=film_data, mix=teacher)
            small = build(prune, PruneConfig(), data=film_data, mix=teacher, distil=whole)
            graphs = build(quantize, QuantizeConfig(), data=film_data, prune=small)
            found[key] = {"distil": whole, "prune": small, "quantize": graphs}
        return found[key]

    return run


def static_of(folder: Path) -> StaticEncoder:
    encoder = load_item_encoder(folder)
    assert isinstance(encoder, StaticEncoder)
    return encoder


@pytest.mark.parametrize("student", STUDENTS, ids=name_of)
class TestEveryStaticStudent:
    def test_it_is_small_finite_and_in_the_teachers_space(
        self, student: StaticStudent, made: Any, film_teacher: dict[str, Path]
    ) -> None:
        folder, teacher = made(student)["distil"], teacher_text(film_teacher["target"])
        encoder = static_of(folder)
        assert encoder.dim == teacher.dim
        assert encoder.table.shape == (teacher.tokenizer.get_vocab_size(), student.dim or teacher.dim)
        assert torch.isfinite(encoder.table).all()
        assert sum(p.numel() for p in encoder.parameters()) < sum(p.numel() for p in teacher.parameters()) / 2
        space = text_space(film_teacher["target"])
        assert model_facts(folder) == {
            "parts": ["text"],
            "text_space": space,
            "read": {"texts": "warm", "held_out": 0.1, "made": 0.0},
        }

    def test_the_same_again(
        self, student: StaticStudent, made: Any, build: Run, film_data: Path, film_teacher: dict[str, Path]
    ) -> None:
        folder = made(student)["distil"]
        again = build(distil, DistilConfig(student=student), data=film_data, mix=film_teacher["target"])
        for file in ("text/table.safetensors", "text/shapes.json", "metrics.json", "model.json"):
            assert (again / file).read_bytes() == (folder / file).read_bytes()

    def test_pruning_drops_words_and_leaves_the_texts_their_vectors(
        self, student: StaticStudent, made: Any, film_data: Path
    ) -> None:
        texts = item_texts(film_data, TextReader()).items
        whole, small = (static_of(made(student)[stage]) for stage in ("distil", "prune"))
        np.testing.assert_allclose(small.encode(texts), whole.encode(texts), atol=1e-6)
        assert len(small.table) < len(whole.table)  # words of cold items alone
        report = prune_vocabulary(small, texts[:5])
        assert report.after == len(small.table) == small.tokenizer.get_vocab_size() < report.before
        np.testing.assert_allclose(small.encode(texts[:5]), whole.encode(texts[:5]), atol=1e-6)
        metrics = [read_json(made(student)[stage] / "metrics.json") for stage in ("distil", "prune")]
        assert metrics[0] == metrics[1]

    def test_it_is_served_by_the_contract_of_every_text_encoder(
        self, student: StaticStudent, made: Any, film_data: Path, tmp_path: Path
    ) -> None:
        folder, encoder = made(student)["quantize"], static_of(made(student)["prune"])
        facts = read_json(folder / "candidate.json")
        assert set(facts["graphs"]["text"]) == {"fp32", "int8_dynamic"}
        assert (facts["max_tokens"], facts["text_dim"]) == (16, encoder.dim)
        served = TextEncoder(folder / facts["graphs"]["text"]["fp32"], folder / "tokenizer.json", facts["max_tokens"])
        texts = [*item_texts(film_data, TextReader()).items[:9], "never heard of", ""]
        np.testing.assert_allclose(served.encode(texts), encoder.encode(texts), atol=1e-5)
        assert read_json(folder / "parity.json")["text.int8_dynamic.onnx"]["centred_cosine"] > 0.9
        text_map = np.random.default_rng(0).normal(size=(encoder.dim, 3)).astype(np.float32)
        for precision, file in facts["graphs"]["text"].items():
            onnx.save(fold_map(onnx.load(folder / file), text_map), tmp_path / file)
            folded = TextEncoder(tmp_path / file, folder / "tokenizer.json", 16).encode(texts)
            whole = TextEncoder(folder / file, folder / "tokenizer.json", 16).encode(texts)
            np.testing.assert_allclose(folded, whole @ text_map, atol=1e-4, err_msg=precision)
        nodes = {node.op_type for node in onnx.load(folder / "text.fp32.onnx").graph.node}
        assert "Gather" in nodes and not nodes & {"Softmax", "LayerNormalization", "Erf"}


def test_fitted_it_is_nearer_than_it_started_and_the_error_is_of_texts_it_has_not_seen(
    made: Any, film_data: Path, film_teacher: dict[str, Path]
) -> None:
    errors = {
        s: read_json(made(s)["distil"] / "metrics.json")["unexplained_variance"] for s in (STUDENTS[0], STUDENTS[4])
    }
    assert errors[STUDENTS[0]] < 0.5 < errors[STUDENTS[4]]
    texts = item_texts(film_data, TextReader()).items
    wanted, got = (
        e.encode(texts) for e in (teacher_text(film_teacher["target"]), static_of(made(STUDENTS[0])["distil"]))
    )
    assert float(((got - wanted) ** 2).mean() / wanted.var(0).mean()) < errors[STUDENTS[0]]


def test_quantizers_that_store_weights_take_it_and_those_that_change_a_language_model_say_so(
    made: Any, build: Run, film_data: Path
) -> None:
    small = made(STUDENTS[0])["prune"]
    stored = QuantizeConfig.model_validate({"text": ["int8_weight_only", "int8_static", "fp16"]})
    graphs = build(quantize, stored, data=film_data, prune=small)
    assert set(read_json(graphs / "candidate.json")["graphs"]["text"]) == {
        "fp32",
        "int8_weight_only",
        "int8_static",
        "fp16",
    }
    with pytest.raises(UsageError, match="int8_smooth needs a language model"):
        build(quantize, QuantizeConfig.model_validate({"text": ["int8_smooth"]}), data=film_data, prune=small)


def test_the_words_a_text_has_decide_and_their_order_does_not(made: Any) -> None:
    encoder = static_of(made(STUDENTS[0])["distil"])
    one, two, alone, _longer = encoder.encode(
        ["river matrix", "matrix river", "river", "river matrix heat of the night"]
    )
    np.testing.assert_allclose(one, two, atol=1e-6)
    assert np.abs(one - alone).max() > 1e-3
    np.testing.assert_allclose(encoder.encode(["river"])[0], alone, atol=1e-6)  # padding beside longer ones: no effect


def test_a_decoders_tokens_become_a_table_too(lm_folder: Callable[..., Path]) -> None:
    teacher = load_backbone(lm_folder("llama"), 12, "last")
    teacher.head = nn.Linear(teacher.hidden_size, 4, bias=False)
    texts = [f"film {word}" for word in ("one", "two", "three", "four", "five", "six")]
    encoder, error = distil_static(StaticStudent(dim=2), teacher, parted(texts, 0.1), OPTIONS)
    assert encoder.encode(texts).shape == (6, 4) and np.isfinite(error)
    with pytest.raises(UsageError, match=r"dim: at most 4, the teacher's \(got 5\)"):
        distil_static(StaticStudent(dim=5), teacher, parted(texts, 0.1), OPTIONS)


def test_a_token_alone_is_framed_as_a_text_is() -> None:
    teacher = RandomBert(layers=1)(["a river", "heat"], 16, 0)
    vectors = token_vectors(teacher, teacher.tokenizer.get_vocab_size())
    token = teacher.tokenizer.token_to_id("river")
    np.testing.assert_allclose(vectors[token], teacher.encode(["river"])[0], atol=1e-5)


def test_forward_by_hand() -> None:
    shape = StaticShape(vocabulary=3, dim=2, max_tokens=4, rank=1)
    encoder = StaticEncoder(RandomBert(layers=1)(["x"], 4, 0).tokenizer, shape)
    with torch.no_grad():
        encoder.table.copy_(torch.tensor([[100.0], [1.0], [3.0]]))
        assert isinstance(encoder.head, nn.Linear)
        encoder.head.weight.copy_(torch.tensor([[1.0], [-2.0]]))
        encoder.head.bias.copy_(torch.tensor([10.0, 0.0]))
        vectors = encoder(torch.tensor([[1, 2, 0], [2, 0, 0]]), torch.tensor([[1, 1, 0], [1, 0, 0]]))
    torch.testing.assert_close(vectors, torch.tensor([[12.0, -4.0], [13.0, -6.0]]))


def test_weights_by_hand() -> None:
    np.testing.assert_allclose(Sif(a=0.5)(np.array([2.0, 0.0, 2.0])), [0.5, 1.0, 0.5])
    # ranks 2, 3 of two tokens: shares 3/5 and 2/5
    np.testing.assert_allclose(Zipf(a=0.4)(np.array([9.0, 9.0])), [0.4, 0.5])


def test_shares_by_hand() -> None:
    shares = token_shares(torch.tensor([[1, 1, 2], [0, 9, 9]]), torch.tensor([[1, 1, 1], [1, 0, 0]]), 3)
    torch.testing.assert_close(shares.to_dense(), torch.tensor([[0, 2 / 3, 1 / 3], [1, 0, 0]], dtype=torch.float64))


def test_own_changes_are_those_of_ridge_regression() -> None:
    generator = torch.Generator().manual_seed(0)
    dense = torch.rand(7, 12, generator=generator).double() * (torch.rand(7, 12, generator=generator) > 0.6)
    left = torch.randn(7, 3, generator=generator).double()
    penalty = 0.1 * float(dense.square().sum()) / 7
    expected = torch.linalg.solve(dense.T @ dense + penalty * torch.eye(12).double(), dense.T @ left)
    torch.testing.assert_close(own_changes(dense.to_sparse().coalesce(), left, 0.1), expected, atol=1e-5, rtol=1e-4)
    assert not own_changes(dense.to_sparse().coalesce(), torch.zeros_like(left), 0.1).any()


def test_what_an_affine_map_can_reach_it_reaches() -> None:
    generator = torch.Generator().manual_seed(0)
    rows = torch.randn(12, 3, generator=generator).double()
    shares = torch.softmax(torch.randn(30, 12, generator=generator).double() * 3, 1).to_sparse().coalesce()
    map_, bias = torch.randn(3, 2, generator=generator).double(), torch.tensor([5.0, -7.0]).double()
    wanted = torch.sparse.mm(shares, rows @ map_ + bias)
    torch.testing.assert_close(mapped_rows(rows, shares, wanted, 1e-9), rows @ map_ + bias, atol=1e-5, rtol=1e-5)
    held_out = torch.arange(30) % 5 == 0
    strengths = chosen_strengths(rows, shares, wanted, held_out)
    assert strengths[0] == 1e-4
    assert (fitted(rows, shares, wanted, strengths) - (rows @ map_ + bias)).abs().max() < 1e-2


def test_principal_axes_by_hand() -> None:
    centre, axes = principal_axes(torch.tensor([[1.0, 0.0], [1.0, 4.0], [1.0, 8.0]]), 1)
    torch.testing.assert_close(centre, torch.tensor([1.0, 4.0]))
    torch.testing.assert_close(axes.abs(), torch.tensor([[0.0], [1.0]]))


def test_a_share_held_out_is_asked_for_within_bounds() -> None:
    with pytest.raises(ValueError, match="less than 1"):
        StaticStudent(held_out=1.0)
