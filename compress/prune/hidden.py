"""Cutting the hidden width: the states between layers are rotated to their principal directions, the least are deleted.

SliceGPT (Ashkboos et al. 2024, section 3). What normalises the states, x / rms(x), commutes with a rotation; gains and
offsets around it fold into the maps that read its output. Then the rows and columns of the least directions go.

- Decoders (RMSNorm): one rotation for all of the residual stream, so that no residual needs a map.
- BERT-like encoders (LayerNorm between the sums): a rotation for each norm, and so a map for each residual, which also
  takes the norm's gain; what such an encoder looks like is in `models/rotated.py`.

Which axes describe the kept directions is free: they are turned at random, by a fixed seed, so that none holds much
more than the others, which is easier to round to INT8 (QuaRot: Ashkboos et al. 2024, arXiv 2404.00456).

Exact, up to rounding, where the states lie in the kept directions at every norm (LayerNorm has one less than the width
to begin with); else the share of their variance outside is lost, and later norms divide by a root mean square of the
kept part alone. The kept part is scaled by sqrt(kept / width), so that `eps` keeps its meaning.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from compress.models.embedding import FactorizedEmbedding
from compress.models.rotated import rotated_layout
from compress.models.text import TextEncoder
from compress.models.tokens import by_length

Tokens = tuple[Tensor, Tensor]


def hidden_width(encoder: TextEncoder, share: float) -> int:
    """About `share` (0..1] of the hidden width, in multiples of the number of heads, which Hugging Face asks for."""
    heads = int(encoder.lm.config.num_attention_heads)
    return max(1, round(share * encoder.hidden_size / heads)) * heads


@torch.no_grad()
def prune_hidden(encoder: TextEncoder, width: int, tokens: Tokens) -> float:
    """Keep `width` directions of the hidden states, in place; returns the share of their variance that is lost.

    tokens: ids and mask (texts, tokens) int64 of calibration texts. Config, tables, norms and maps follow; item vectors
    keep their width, by a head that the encoder gets where it has none. Layers are dropped before, not after
    (`TextEncoder.keep_layers`). Parameters are replaced. Raises ValueError for a width above what there is, and where
    the encoder was cut before.
    """
    if not 0 < width <= encoder.hidden_size:
        raise ValueError(f"width: must be at least 1 and at most {encoder.hidden_size} (got {width})")
    if encoder.shape.rotated:
        raise ValueError("the encoder's hidden width was cut before")
    training = encoder.training
    encoder.eval()
    lost = (_cut_decoder if encoder.family.causal else _cut_encoder)(encoder, width, tokens)
    encoder.train(training)
    return lost


def _cut_decoder(encoder: TextEncoder, width: int, tokens: Tokens) -> float:
    lm = encoder.lm
    norms = [norm for layer in lm.layers for norm in (layer.input_layernorm, layer.post_attention_layernorm)]
    moments = _second_moments(encoder, [*norms, lm.norm], tokens, centred=False)
    kept, lost = _principal(torch.stack(moments).sum(0), width)
    scale = (width / encoder.hidden_size) ** 0.5
    into = kept * scale
    head_dim = int(lm.layers[0].self_attn.head_dim)
    head = _headed(encoder)
    _write_table(encoder.words, into)
    for layer in lm.layers:
        attention, mlp = layer.self_attn, layer.mlp
        for norm, readers, writer in (
            (layer.input_layernorm, (attention.q_proj, attention.k_proj, attention.v_proj), attention.o_proj),
            (layer.post_attention_layernorm, (mlp.gate_proj, mlp.up_proj), mlp.down_proj),
        ):
            out_of = norm.weight.double()[:, None] * kept
            for reader in readers:
                _read(reader, out_of)
            _write(writer, into)
            _set(norm, "weight", torch.full_like(kept[0], 1 / scale))
    _read(head, lm.norm.weight.double()[:, None] * kept)
    _set(lm.norm, "weight", torch.full_like(kept[0], 1 / scale))
    lm.config.hidden_size, lm.config.head_dim = width, head_dim
    return lost


def _cut_encoder(encoder: TextEncoder, width: int, tokens: Tokens) -> float:
    lm, device, old = encoder.lm, next(encoder.parameters()).device, encoder.hidden_size
    outputs = [owner.output for layer in lm.encoder.layer for owner in (layer.attention, layer)]
    norms = [lm.embeddings.LayerNorm, *(output.LayerNorm for output in outputs)]
    moments = _second_moments(encoder, norms, tokens, centred=True)
    found = [_principal(moment, width) for moment in moments]
    scale = (width / old) ** 0.5
    intos = [_centred(kept) * scale for kept, _ in found]
    out_ofs = [norm.weight.double()[:, None] * kept for norm, (kept, _) in zip(norms, found, strict=True)]
    offsets = [norm.bias.double() for norm in norms]
    head_dim = int(lm.encoder.layer[0].attention.self.attention_head_size)
    head = _headed(encoder)
    for table in (encoder.words, lm.embeddings.position_embeddings, lm.embeddings.token_type_embeddings):
        _write_table(table, intos[0])
    lm.config.hidden_size, lm.config.head_dim = width, head_dim
    rotated_layout(lm)
    encoder.to(device)
    readers = [maps for layer in lm.encoder.layer for maps in _readers(layer)]
    owners = [owner for layer in lm.encoder.layer for owner in (layer.attention, layer)]
    for number, (maps, owner) in enumerate(zip(readers, owners, strict=True)):
        out_of, offset, into = out_ofs[number], offsets[number], intos[number + 1]
        for reader in maps:
            _read(reader, out_of, offset)
        owner.output.dense = outputs[number].dense
        _write(owner.output.dense, into)
        _set(owner.output.residual, "weight", into.T @ out_of)
        _set(owner.output.residual, "bias", into.T @ offset)
    for norm in (lm.embeddings.LayerNorm, *(owner.output.LayerNorm for owner in owners)):
        _set(norm, "weight", torch.full_like(norm.weight, 1 / scale))
    _read(head, out_ofs[-1], offsets[-1])
    encoder.shape = encoder.shape.model_copy(update={"rotated": True})
    return sum(lost for _, lost in found) / len(found)


def _readers(layer: Any) -> list[list[nn.Linear]]:
    """The maps that read what enters a layer, and those that read what its attention leaves."""
    own = layer.attention.self
    return [[own.query, own.key, own.value], [layer.intermediate.dense]]


def _second_moments(encoder: TextEncoder, norms: Sequence[nn.Module], tokens: Tokens, centred: bool) -> list[Tensor]:
    """Of what enters each norm, normalised, over real tokens: the mean of its products, (hidden, hidden) float64."""
    device, size = next(encoder.parameters()).device, encoder.hidden_size
    moments = [torch.zeros(size, size, dtype=torch.float64, device=device) for _ in norms]
    real = torch.zeros(0)

    def adder(moment: Tensor) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        def add(_norm: nn.Module, inputs: tuple[Tensor, ...]) -> None:
            states = inputs[0][real].double()
            states = _centred(states.T).T if centred else states
            states = states / states.square().mean(1, keepdim=True).sqrt().clamp(min=1e-12)
            moment.add_(states.T @ states)

        return add

    hooks = [norm.register_forward_pre_hook(adder(m)) for norm, m in zip(norms, moments, strict=True)]
    ids, mask = tokens
    try:
        for index in by_length(mask):
            used = int(mask[index].sum(1).max())
            some, there = ids[index, :used].to(device), mask[index, :used].to(device)
            real = there > 0
            encoder(some, there)
    finally:
        for hook in hooks:
            hook.remove()
    return [moment / int(mask.sum()) for moment in moments]


def _principal(moment: Tensor, width: int) -> tuple[Tensor, float]:
    """Axes of the `width` leading directions, (hidden, width) with orthonormal columns, and the share of variance
    outside."""
    values, directions = torch.linalg.eigh(moment)
    lost = values[: len(values) - width].clamp(min=0).sum() / values.clamp(min=0).sum()
    normal = torch.randn(width, width, dtype=moment.dtype, generator=torch.Generator().manual_seed(0))
    turned, _ = torch.linalg.qr(normal)
    return directions.flip(1)[:, :width] @ turned.to(moment.device), float(lost)


def _centred(columns: Tensor) -> Tensor:
    """(hidden, n) -> each column less its mean."""
    return columns - columns.mean(0)


def _headed(encoder: TextEncoder) -> nn.Linear:
    """The head; an identity becomes a map."""
    if not isinstance(encoder.head, nn.Linear):
        head = nn.Linear(encoder.hidden_size, encoder.hidden_size, bias=False)
        nn.init.eye_(head.weight)
        encoder.head = head.to(next(encoder.parameters()))
    return encoder.head


def _read(linear: nn.Linear, out_of: Tensor, offset: Tensor | None = None) -> None:
    """Let a map read cut states: out_of (hidden, width), with `offset` (hidden,), gives the old states back."""
    weight = linear.weight.double()
    if offset is not None:
        bias = weight @ offset if linear.bias is None else linear.bias.double() + weight @ offset
        linear.bias = nn.Parameter(bias.to(linear.weight.dtype))
    _set(linear, "weight", weight @ out_of)
    linear.in_features = out_of.shape[1]


def _write(linear: nn.Linear, into: Tensor) -> None:
    """Let a map write cut states: into (hidden, width) is what makes them of the old ones."""
    _set(linear, "weight", into.T @ linear.weight.double())
    if linear.bias is not None:
        _set(linear, "bias", into.T @ linear.bias.double())
    linear.out_features = into.shape[1]


def _write_table(table: nn.Embedding | FactorizedEmbedding, into: Tensor) -> None:
    if isinstance(table, FactorizedEmbedding):
        _write(table.widen, into)
        return
    _set(table, "weight", table.weight.double() @ into)
    table.embedding_dim = into.shape[1]


def _set(module: nn.Module, name: str, value: Tensor) -> None:
    old = module.get_parameter(name)
    setattr(module, name, nn.Parameter(value.to(old).contiguous(), requires_grad=old.requires_grad))
