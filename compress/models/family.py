"""The two layouts of language models that are read, cut and exported here: BERT-like encoders, Llama-like decoders."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from compress.models.sequence import BlockShape


class Family(Protocol):
    """How the parts of a Hugging Face base model (`lm`) are reached, whoever made it.

    `lm` is Any: transformers gives its models no types that say more.
    """

    causal: bool  # a token sees the tokens before it alone
    layers_at: str  # dotted path of the layers inside the model
    options: dict[str, Any]  # beside eager attention, what `AutoModel` is built with

    def layers(self, lm: Any) -> nn.ModuleList: ...
    def replace_layers(self, lm: Any, indices: Iterable[int]) -> None:
        """Keep these layers, in this order; the model's config follows."""

    def embeddings(self, lm: Any) -> nn.Module: ...
    def embed(self, lm: Any, input_ids: Tensor) -> Tensor:
        """input_ids (batch, tokens) int64 -> what enters the first layer, (batch, tokens, hidden)."""

    def run(self, lm: Any, layers: Iterable[nn.Module], hidden: Tensor, attention_mask: Tensor) -> Tensor:
        """hidden (batch, tokens, hidden), attention_mask (batch, tokens) 0/1 -> hidden after `layers`."""

    def after_layers(self, lm: Any) -> nn.Module:
        """What the last layer's states still pass, such as a norm."""

    def projections(self, layer: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
        """The maps to a layer's queries, keys and values."""

    def block(self, config: Any) -> BlockShape: ...
    def resize(self, layer: Any, config: Any, block: BlockShape) -> None:
        """Give a fresh layer the widths of `block`. Raises ValueError where the family has no such layers."""

    def most_tokens(self, config: Any) -> int: ...


class Bert:
    """An encoder laid out as BERT: absolute positions in its embeddings, norms inside its layers."""

    causal = False
    layers_at = "encoder.layer"
    options: dict[str, Any] = {"add_pooling_layer": False}  # noqa: RUF012

    def layers(self, lm: Any) -> nn.ModuleList:
        layers: nn.ModuleList = lm.encoder.layer
        return layers

    def replace_layers(self, lm: Any, indices: Iterable[int]) -> None:
        lm.encoder.layer = nn.ModuleList(lm.encoder.layer[index] for index in indices)
        lm.config.num_hidden_layers = len(lm.encoder.layer)

    def embeddings(self, lm: Any) -> nn.Module:
        embeddings: nn.Module = lm.embeddings
        return embeddings

    def embed(self, lm: Any, input_ids: Tensor) -> Tensor:
        hidden: Tensor = lm.embeddings(input_ids=input_ids)
        return hidden

    def run(self, lm: Any, layers: Iterable[nn.Module], hidden: Tensor, attention_mask: Tensor) -> Tensor:  # noqa: ARG002
        for layer in layers:
            hidden = layer(hidden, additive(attention_mask))
        return hidden

    def after_layers(self, lm: Any) -> nn.Module:  # noqa: ARG002
        return nn.Identity()

    def projections(self, layer: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
        attention = layer.attention.self
        return attention.query, attention.key, attention.value

    def block(self, config: Any) -> BlockShape:
        return BlockShape(heads=config.num_attention_heads, neurons=config.intermediate_size)

    def resize(self, layer: Any, config: Any, block: BlockShape) -> None:
        """Fresh linear maps of the pruned widths; a head stays as wide as it was: `config.head_dim`, which BERT has
        not, says so where the hidden width was cut."""
        attention, hidden = layer.attention.self, config.hidden_size
        head_dim = getattr(config, "head_dim", None) or attention.attention_head_size
        attention.attention_head_size, attention.scaling = head_dim, head_dim**-0.5
        inner = block.heads * head_dim
        for name in ("query", "key", "value"):
            setattr(attention, name, nn.Linear(hidden, inner))
        layer.attention.output.dense = nn.Linear(inner, hidden)
        layer.intermediate.dense = nn.Linear(hidden, block.neurons)
        layer.output.dense = nn.Linear(block.neurons, hidden)
        attention.num_attention_heads, attention.all_head_size = block.heads, inner

    def most_tokens(self, config: Any) -> int:
        """RoBERTa and its kin count positions from after the padding token's id."""
        before = 0 if config.model_type == "bert" else int(config.pad_token_id) + 1
        return int(config.max_position_embeddings) - before


class Llama:
    """A decoder laid out as Llama: rotary positions given to each layer, one norm after the last."""

    causal = True
    layers_at = "layers"
    options: dict[str, Any] = {"dtype": torch.float32}  # noqa: RUF012 - a checkpoint may say bfloat16

    def layers(self, lm: Any) -> nn.ModuleList:
        layers: nn.ModuleList = lm.layers
        return layers

    def replace_layers(self, lm: Any, indices: Iterable[int]) -> None:
        indices = list(indices)
        lm.layers = nn.ModuleList(lm.layers[index] for index in indices)
        lm.config.num_hidden_layers = len(indices)
        for name in ("layer_types", "no_rope_layers"):  # one value per layer
            if (values := getattr(lm.config, name, None)) is not None:
                setattr(lm.config, name, [values[index] for index in indices])

    def embeddings(self, lm: Any) -> nn.Module:
        embeddings: nn.Module = lm.embed_tokens
        return embeddings

    def embed(self, lm: Any, input_ids: Tensor) -> Tensor:
        hidden: Tensor = lm.embed_tokens(input_ids)
        return hidden

    def run(self, lm: Any, layers: Iterable[nn.Module], hidden: Tensor, attention_mask: Tensor) -> Tensor:
        positions = torch.arange(hidden.shape[1], device=hidden.device)[None]
        rotary = lm.rotary_emb(hidden, positions)
        mask = additive(attention_mask) + future(positions)
        for layer in layers:
            hidden = layer(hidden, attention_mask=mask, position_embeddings=rotary)
        return hidden

    def after_layers(self, lm: Any) -> nn.Module:
        norm: nn.Module = lm.norm
        return norm

    def projections(self, layer: Any) -> tuple[nn.Module, nn.Module, nn.Module]:
        return layer.self_attn.q_proj, layer.self_attn.k_proj, layer.self_attn.v_proj

    def block(self, config: Any) -> BlockShape:
        return BlockShape(heads=config.num_attention_heads, neurons=config.intermediate_size)

    def resize(self, layer: Any, config: Any, block: BlockShape) -> None:
        """Fresh linear maps of the pruned widths. Query heads stay in groups of as many as the model had."""
        attention, mlp, hidden = layer.self_attn, layer.mlp, config.hidden_size
        keys, rest = divmod(block.heads, attention.num_key_value_groups)
        if rest or not keys:
            raise ValueError(f"heads: must be groups of {attention.num_key_value_groups} (got {block.heads})")
        for name, heads in (("q_proj", block.heads), ("k_proj", keys), ("v_proj", keys)):
            setattr(attention, name, fresh(getattr(attention, name), hidden, heads * attention.head_dim))
        attention.o_proj = fresh(attention.o_proj, block.heads * attention.head_dim, hidden)
        for name in ("gate_proj", "up_proj"):
            setattr(mlp, name, fresh(getattr(mlp, name), hidden, block.neurons))
        mlp.down_proj = fresh(mlp.down_proj, block.neurons, hidden)

    def most_tokens(self, config: Any) -> int:
        """Within one attention window, so that every layer sees the whole text."""
        windowed = "sliding_attention" in (getattr(config, "layer_types", None) or ["sliding_attention"])
        window = getattr(config, "sliding_window", None) if windowed else None
        return min(int(config.max_position_embeddings), int(window or config.max_position_embeddings))


BERT, LLAMA = Bert(), Llama()
FAMILIES: dict[str, Family] = {
    **dict.fromkeys(("bert", "camembert", "roberta", "xlm-roberta"), BERT),
    **dict.fromkeys(("llama", "mistral", "qwen2", "qwen3", "smollm3"), LLAMA),
}
"""`model_type` of a Hugging Face config -> its family."""


def fresh(like: nn.Linear, inputs: int, outputs: int) -> nn.Linear:
    """A new map of another size, with a bias where `like` has one."""
    return nn.Linear(inputs, outputs, bias=like.bias is not None)


def additive(attention_mask: Tensor) -> Tensor:
    """(batch, tokens) of 0/1 -> (batch, 1, 1, tokens), 0 for a token and -1e4 for padding."""
    return (1.0 - attention_mask[:, None, None, :].float()) * -1e4


def future(positions: Tensor) -> Tensor:
    """positions (1, tokens) int64 -> (1, 1, tokens, tokens), 0 where a row's token may look, -1e4 ahead of it."""
    return (positions[:, None, None, :] > positions[:, None, :, None]).float() * -1e4
