"""Stage `pretrain`: continue masked language modelling on the item texts of all domains (Devlin et al. 2019, 3.1)."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset, domain_names
from compress.models.folder import write_model
from compress.models.text import TextEncoder, batches
from compress.stage import Entry, Inputs, RunOptions, Shorthand, Skip, StageConfig
from compress.teacher.backbone import AnyBackbone, Pretrained
from compress.training import Share, seed_everything


class MaskedLM(Entry):
    """Mask tokens (80 % mask, 10 % random, 10 % unchanged) and predict them through the tied word embeddings."""

    name: Literal["masked_lm"] = "masked_lm"
    epochs: PositiveInt = 2
    batch_size: PositiveInt = 64
    learning_rate: PositiveFloat = 2e-4
    mask_share: Share = 0.15
    held_out_share: Share = 0.1


class PretrainConfig(StageConfig):
    """Which language model, which of its layers are trained, and how; `none`: no language model, no teacher."""

    skipped: ClassVar = {"backbone": "none", "objective": "none"}

    backbone: AnyBackbone = Pretrained()
    objective: Annotated[MaskedLM | Skip, Field(discriminator="name"), Shorthand] = MaskedLM()
    trained_layers: PositiveInt = 2
    max_tokens: Annotated[int, Field(ge=4, le=512)] = 32


def backbone_digests(config: PretrainConfig) -> dict[str, str]:
    """What the weights depend on beside the config: the backbone's files."""
    return {} if isinstance(config.backbone, Skip) else config.backbone.digests()


def pretrain(config: PretrainConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data -> a model folder with `text/`; with backbone `none` an empty one (there is no teacher)."""
    if isinstance(config.backbone, Skip):
        write_model(out)
        return
    rng = seed_everything(config.seed, options)
    texts = sorted({t for d in domain_names(inputs["data"]) for t in Dataset.open(inputs["data"], d).texts})
    encoder = config.backbone(texts, config.max_tokens, config.seed).to(options.device)
    metrics = {}
    if isinstance(config.objective, MaskedLM):
        metrics = _masked_lm(encoder, texts, config, config.objective, rng, options)
    write_model(out, text=encoder, metrics=metrics)


def _masked_lm(
    encoder: TextEncoder,
    texts: Sequence[str],
    config: PretrainConfig,
    objective: MaskedLM,
    rng: np.random.Generator,
    options: RunOptions,
) -> dict[str, float]:
    """Train in place; returns held-out loss before and after, in nats per masked token."""
    order = rng.permutation(len(texts))
    held = max(1, int(len(texts) * objective.held_out_share))
    held_out, train = [texts[i] for i in order[:held]], [texts[i] for i in order[held:]]
    first = encoder.train_layers(config.trained_layers)
    head = _MaskedHead(encoder).to(options.device)
    trained = [p for p in [*encoder.parameters(), *head.parameters()] if p.requires_grad]
    optimizer = torch.optim.AdamW(trained, lr=objective.learning_rate)

    def losses(some: Sequence[str], generator: np.random.Generator) -> Iterator[tuple[Tensor, int]]:
        for part in batches(len(some), objective.batch_size):
            ids, mask = encoder.tokenize(some[part])
            inputs, wanted = mask_tokens(ids, mask, encoder, objective.mask_share, generator)
            inputs, mask, wanted = (t.to(options.device) for t in (inputs, mask, wanted))
            with torch.no_grad():
                hidden = encoder.lower(inputs, mask, first)
            hidden = encoder.upper(hidden, mask, first)[wanted >= 0]
            yield functional.cross_entropy(head(hidden), wanted[wanted >= 0]), len(hidden)

    @torch.no_grad()
    def held_out_loss() -> float:
        encoder.eval()
        parts = [(float(loss), n) for loss, n in losses(held_out, np.random.default_rng(config.seed))]
        return sum(loss * n for loss, n in parts) / sum(n for _, n in parts)

    before = held_out_loss()
    for _ in options.progress(range(objective.epochs), "pretrain", objective.epochs):
        encoder.train()
        shuffled = [train[i] for i in rng.permutation(len(train))]
        for loss, _n in losses(shuffled, rng):
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    after = held_out_loss()
    encoder.eval()
    options.log(f"pretrain: held-out loss {before:.3f} -> {after:.3f} nats per masked token")
    return {"held_out_loss_before": before, "held_out_loss_after": after}


class _MaskedHead(nn.Module):
    """Hidden states -> logits over the vocabulary, tied to the word embeddings. Left behind after pretraining."""

    def __init__(self, encoder: TextEncoder) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(encoder.hidden_size)
        self.transform = nn.Linear(encoder.hidden_size, encoder.hidden_size)
        nn.init.eye_(self.transform.weight)
        embeddings = encoder.lm.get_input_embeddings().weight
        self.bias = nn.Parameter(torch.zeros(embeddings.shape[0]))
        self._embeddings = [embeddings]  # a list, so that they are not a parameter of the head

    def forward(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.norm(self.transform(hidden)) @ self._embeddings[0].T + self.bias
        return logits


def mask_tokens(
    ids: Tensor, mask: Tensor, encoder: TextEncoder, share: float, rng: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """(batch, tokens) ids -> masked ids and the wanted ones (-1 where nothing is asked). At least one token a batch."""
    special = torch.tensor(sorted(encoder.tokenizer.get_added_tokens_decoder()))
    candidates = mask.bool() & ~torch.isin(ids, special)
    chosen = candidates & (torch.from_numpy(rng.random(ids.shape)) < share)
    if not chosen.any() and candidates.any():
        chosen.view(-1)[int(candidates.view(-1).nonzero()[0])] = True
    fate = torch.from_numpy(rng.random(ids.shape))
    noise = torch.from_numpy(rng.integers(0, encoder.lm.config.vocab_size, ids.shape))
    mask_id = encoder.tokenizer.token_to_id("[MASK]")
    mask_id = encoder.tokenizer.token_to_id("<mask>") if mask_id is None else mask_id
    masked = torch.where(chosen & (fate < 0.8), torch.tensor(mask_id), ids)
    masked = torch.where(chosen & (fate >= 0.9), noise, masked)
    return masked, torch.where(chosen, ids, torch.tensor(-1))
