"""The graph contract, as the ranker and the text encoder see it."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from deploy.errors import UsageError
from deploy.ranker import Ranker
from deploy.text import TextEncoder


@pytest.fixture
def table(tiny):
    import onnx
    from onnx import numpy_helper

    graph = onnx.load(tiny.folder / "history.fp32.onnx").graph
    return next(numpy_helper.to_array(value) for value in graph.initializer if value.name == "table")


def test_rank_agrees_with_numpy(tiny, table):
    ranker = Ranker(tiny.folder / "history.fp32.onnx", spin=False)
    history = np.array([[0, 0, 3], [4, 5, 6]], np.int64)
    exclude = np.array([[0, 9], [1, 2]], np.int64)
    scores, rows = ranker.rank(history, exclude, 6)
    assert (scores.dtype, rows.dtype, scores.shape, rows.shape) == (np.float32, np.int64, (2, 6), (2, 6))
    for place, (seen, blocked) in enumerate([([3], [9]), ([4, 5, 6], [1, 2])]):
        expected = table @ table[seen].mean(axis=0)
        expected[[0, *seen, *blocked]] = -np.inf
        order = np.argsort(-expected, kind="stable")[:6]
        assert rows[place].tolist() == order.tolist()
        np.testing.assert_allclose(scores[place], expected[order], rtol=1e-5)


def test_the_best_of_one_history_are_rank_s(tiny):
    """In arrays that are used again: shorter excludes leave nothing behind, and each thread has its own."""
    ranker = Ranker(tiny.folder / "history.fp32.onnx", spin=False)
    rng = np.random.default_rng(0)
    questions = []
    for number in range(300):
        history = rng.choice(20, 1 + number % 5, replace=False) + 1
        exclude = rng.choice(20, rng.integers(0, 20), replace=False) + 1
        questions.append((history.tolist(), exclude.tolist(), 1 + number % 20))
    expected = []
    for history, exclude, k in questions:
        scores, rows = ranker.rank(np.array([history]), np.array([exclude or [0]]), k)
        expected.append((scores[0].tolist(), rows[0].tolist()))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(lambda question: ranker.best(*question), questions)) == expected
    assert [ranker.best(*question) for question in questions] == expected


def test_a_graph_with_other_inputs_is_refused(tiny):
    with pytest.raises(UsageError, match=r"text.fp32.onnx: must map history, exclude, k to scores, rows"):
        Ranker(tiny.folder / "text.fp32.onnx")
    with pytest.raises(UsageError, match=r"history.fp32.onnx: must map input_ids, attention_mask to vectors"):
        TextEncoder(tiny.folder / "history.fp32.onnx", tiny.folder / "tokenizer.json", 6)


def test_what_onnxruntime_cannot_load_is_one_line(tmp_path, tiny):
    (tmp_path / "bad.onnx").write_bytes(b"not a graph")
    with pytest.raises(UsageError, match=r"bad.onnx: onnxruntime cannot load it") as caught:
        Ranker(tmp_path / "bad.onnx")
    assert len(caught.value.lines) == 1
    with pytest.raises(UsageError, match=r"lacks the provider .got NoSuchProvider"):
        Ranker(tiny.folder / "history.fp32.onnx", providers=["NoSuchProvider"])


@pytest.fixture
def encoder(tiny):
    return TextEncoder(tiny.folder / "text.fp32.onnx", tiny.folder / "tokenizer.json", 6, batch_size=2)


def test_texts_do_not_depend_on_their_batch(encoder):
    texts = ["film", "film odd even drama", "odd", "unheard of", "drama drama"]
    together = encoder.encode(texts)
    assert together.shape == (5, 4) and together.dtype == np.float32
    for text, vector in zip(texts, together, strict=True):
        np.testing.assert_allclose(encoder.encode([text])[0], vector, rtol=1e-6)
    np.testing.assert_allclose(together[4], encoder.encode(["drama"])[0], rtol=1e-6)


def test_long_texts_are_cut(encoder):
    np.testing.assert_array_equal(encoder.encode(["odd " * 6 + "film " * 50]), encoder.encode(["odd"] * 1))


def test_no_texts(encoder):
    assert encoder.encode([]).shape == (0, 4)


def test_a_broken_tokenizer_is_one_line(tiny, tmp_path):
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(UsageError, match=r"tokenizer.json: tokenizers cannot load it"):
        TextEncoder(tiny.folder / "text.fp32.onnx", tmp_path / "tokenizer.json", 6)
