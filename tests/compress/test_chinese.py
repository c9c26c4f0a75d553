"""No step assumes English: a Chinese BERT over Chinese titles, from its vocabulary file to the graph that serves it."""

import itertools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from compress.data.dataset import Dataset
from compress.data.load import DataConfig, load_data
from compress.distil.distil import DistilConfig, distil
from compress.models.folder import load_array, load_text, read_json
from compress.prune.prune import PruneConfig, prune
from compress.quantize.quantize import QuantizeConfig, quantize
from compress.teacher.backbone import load_backbone
from compress.teacher.pretrain import PretrainConfig, pretrain
from compress.teacher.transfer import SourceConfig, TargetConfig, train_source, train_target
from deploy.text import TextEncoder as GraphTextEncoder

Run = Callable[..., Path]
TITLES = [f"{a}{b}" for a, b in itertools.product(("霸王", "红", "活", "大话", "东邪"), ("别姬", "高粱", "着", "西游"))]
KINDS = ("剧情", "爱情")


@pytest.fixture(scope="module")
def chinese_bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As bert-base-chinese comes: one token a character, `vocab.txt` and `BertTokenizer` settings."""
    folder = tmp_path_factory.mktemp("bert-chinese")
    letters = sorted({letter for text in [*TITLES, *KINDS, "。()0123456789"] for letter in text})
    pieces = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters, *(f"##{letter}" for letter in letters)]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n", "utf-8")
    settings = {"tokenizer_class": "BertTokenizer", "do_lower_case": False, "tokenize_chinese_chars": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(settings))
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
    config = BertConfig(vocab_size=len(pieces), max_position_embeddings=64, **sizes)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def chinese_data(build: Run, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("电影")
    items = [f"{i}\t{title}\t{KINDS[i % 2]}" for i, title in enumerate(TITLES)]
    (folder / "电影.item").write_text(
        "\n".join(["item_id:token\ttitle:token_seq\tclass:token_seq", *items]) + "\n", "utf-8"
    )
    rng = np.random.default_rng(0)
    events = [
        f"用户{user}\t{item}\t{time}"
        for user in range(40)
        for time, item in enumerate(rng.permutation(np.arange(user % 2, len(TITLES), 2))[:8])
    ]
    (folder / "电影.inter").write_text(
        "\n".join(["user_id:token\titem_id:token\ttimestamp:float", *events]) + "\n", "utf-8"
    )
    domain = {"from": str(folder), "text": "{title}。{class}"}
    return build(load_data, DataConfig.model_validate({"domains": {"target": domain}}))


def test_a_vocabulary_file_alone_is_read_and_characters_are_tokens(chinese_bert: Path) -> None:
    encoder = load_backbone(chinese_bert, 16)
    assert encoder.tokenizer.encode("霸王别姬。剧情").tokens == ["[CLS]", *"霸王别姬。剧情", "[SEP]"]
    assert encoder.tokenizer.encode("霸王 (1993)").tokens == ["[CLS]", *"霸王(1", "##9", "##9", "##3", ")", "[SEP]"]


def test_chinese_titles_through_every_stage(build: Run, chinese_bert: Path, chinese_data: Path) -> None:
    texts = Dataset.open(chinese_data).texts
    assert "霸王别姬。剧情" in texts
    objective: Any = {"name": "masked_lm", "epochs": 6, "batch_size": 8, "learning_rate": 5e-3, "texts": "both"}
    settings = {"backbone": str(chinese_bert), "objective": {**objective, "history_tokens": 48}, "max_tokens": 16}
    learned = build(pretrain, PretrainConfig.model_validate(settings), data=chinese_data)
    metrics = read_json(learned / "metrics.json")
    assert metrics["held_out_loss_after"] < metrics["held_out_loss_before"] - 0.1
    method = {"name": "two_level", "dim": 8, "heads": 2, "neurons": 16, "max_history": 6, "frozen_epochs": 0}
    method |= {"training": {"epochs": 3, "batch_size": 16}}
    source = build(train_source, SourceConfig.model_validate("none"), data=chinese_data, pretrain=learned)
    config = TargetConfig.model_validate({"method": method, "cached_scores": 5})
    teacher = build(train_target, config, data=chinese_data, source=source)
    vectors = load_array(teacher, "item_vectors")
    assert vectors is not None and len(np.unique(vectors[1:].round(5), axis=0)) == len(texts)
    student = {"student": {"name": "text", "layers": 2, "training": {"epochs": 2}}}
    distilled = build(distil, DistilConfig.model_validate(student), data=chinese_data, mix=teacher)
    structured = {"text": {"name": "structured", "recovery": {"epochs": 2}}}
    pruned = build(prune, PruneConfig.model_validate(structured), data=chinese_data, mix=teacher, distil=distilled)
    graphs = build(quantize, QuantizeConfig(), data=chinese_data, prune=pruned)
    encoder = load_text(pruned)
    assert encoder is not None and "霸" in encoder.tokenizer.get_vocab()
    served = GraphTextEncoder(graphs / "text.fp32.onnx", graphs / "tokenizer.json", 16).encode(texts)
    np.testing.assert_allclose(served, encoder.encode(texts), atol=1e-4)
