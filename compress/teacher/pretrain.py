"""Stage `pretrain`: continue the language model's own training on the texts of all domains."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset, domain_names
from compress.models.folder import write_model
from compress.models.text import TextEncoder
from compress.models.tokens import batches, cut_at, tokenized
from compress.stage import Inputs, RunOptions, Skip, StageConfig
from compress.teacher.backbone import AnyBackbone, Pretrained
from compress.teacher.documents import Documents, documents
from compress.teacher.objectives import AnyObjective, CausalLM, MaskedLM
from compress.training import seed_everything
from compress.training.checkpoint import epochs_left
from compress.training.engine import accelerator, device_of
from deploy.errors import UsageError


class PretrainConfig(StageConfig):
    """Which language model, which of its layers are trained, and how; `none`: no language model, no teacher."""

    skipped: ClassVar = {"backbone": "none", "objective": "none"}

    backbone: AnyBackbone = Pretrained()
    objective: AnyObjective = MaskedLM()
    trained_layers: PositiveInt = 2
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 32


def backbone_digests(config: PretrainConfig) -> dict[str, str]:
    """What the weights depend on beside the config: the backbone's files. Raises UsageError, for an objective that
    the backbone cannot have too."""
    if isinstance(config.backbone, Skip):
        return {}
    digests = config.backbone.digests()
    family = config.backbone.family()
    if family is not None and not isinstance(config.objective, Skip):
        config.objective.check(family.causal)
    return digests


def pretrain(config: PretrainConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data -> a model folder with `text/`; with backbone `none` an empty one (there is no teacher)."""
    if isinstance(config.backbone, Skip):
        write_model(out)
        return
    rng = seed_everything(config.seed, options)
    datasets = [Dataset.open(inputs["data"], name) for name in domain_names(inputs["data"])]
    texts = sorted({text for dataset in datasets for text in dataset.texts})
    encoder = config.backbone(texts, config.max_tokens, config.seed).to(device_of(options))
    metrics = {}
    if not isinstance(config.objective, Skip):
        config.objective.check(encoder.family.causal)
        some = documents(config.objective, datasets, rng)
        metrics = _train(encoder, some, config, config.objective, rng, options)
    write_model(out, text=encoder, metrics=metrics)


def _train(
    encoder: TextEncoder,
    texts: Documents,
    config: PretrainConfig,
    objective: MaskedLM | CausalLM,
    rng: np.random.Generator,
    options: RunOptions,
) -> dict[str, float]:
    """Train in place; returns held-out loss before and after, in nats per token asked for."""
    tokenizer = encoder.tokenizer
    if objective.texts != "items":
        most = encoder.family.most_tokens(encoder.lm.config)
        if objective.history_tokens > most:
            raise UsageError(
                f"pretrain.objective.history_tokens: the backbone reads at most {most} (got {objective.history_tokens})"
            )
        tokenizer = cut_at(tokenizer, max(config.max_tokens, objective.history_tokens))
    first = encoder.train_layers(config.trained_layers)
    engine = accelerator(options)
    head = objective.head(encoder).to(engine.device)
    trained = [p for p in [*encoder.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=objective.learning_rate)

    def losses(some: Sequence[str], generator: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
        for part in batches(len(some), objective.batch_size):
            ids, mask = tokenized(tokenizer, some[part])
            inputs, wanted = objective.asked(ids, mask, encoder, generator)
            inputs, mask, wanted = (t.to(engine.device) for t in (inputs, mask, wanted))
            if not (wanted >= 0).any():
                continue
            with torch.no_grad():
                hidden = encoder.lower(inputs, mask, first)
            hidden = encoder.upper(hidden, mask, first)[wanted >= 0]
            yield functional.cross_entropy(head(hidden), wanted[wanted >= 0]), len(hidden)

    @torch.no_grad()
    def held_out_loss() -> float:
        encoder.eval()
        parts = [(float(loss), n) for loss, n in losses(texts.held_out, np.random.default_rng(config.seed))]
        return sum(loss * n for loss, n in parts) / max(1, sum(n for _, n in parts))

    before = held_out_loss()
    both, settings = nn.ModuleList([encoder, head]), config.model_dump_json()
    for _ in epochs_left(both, optimizer, objective.epochs, rng, options, "pretrain", settings):
        encoder.train()
        shuffled = [texts.train[i] for i in rng.permutation(len(texts.train))]
        for loss, _n in losses(shuffled, rng):
            optimizer.zero_grad()
            engine.backward(loss)
            optimizer.step()
    after = held_out_loss()
    encoder.eval()
    options.log(f"pretrain: held-out loss {before:.3f} -> {after:.3f} nats per token asked for")
    return {"held_out_loss_before": before, "held_out_loss_after": after}
