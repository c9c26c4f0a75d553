"""Stage `prune`: remove layers, heads, neurons and vocabulary rows, then recover by a short re-distillation."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

from pydantic import Field

from compress.distil.lists import ListwiseKL
from compress.distil.losses import SequenceLosses, wanted_of_teachers
from compress.likes.model import LikesModel
from compress.models.folder import load_item_encoder, load_mix, load_sequence
from compress.models.static import StaticEncoder
from compress.models.text import TextEncoder
from compress.prune.sequence import StructuredSequence, prune_sequence
from compress.prune.text import StructuredText, prune_static, prune_text
from compress.stage import Inputs, RunOptions, Shorthand, Skip, StageConfig
from compress.store import link_tree
from compress.training import seed_everything
from deploy.errors import UsageError


class PruneConfig(StageConfig):
    """What is removed from each part a model has."""

    skipped: ClassVar = {"sequence": "none", "text": "none"}
    sequence: Annotated[StructuredSequence | Skip, Field(discriminator="name"), Shorthand] = StructuredSequence()
    text: Annotated[StructuredText | Skip, Field(discriminator="name"), Shorthand] = StructuredText()
    loss: SequenceLosses = (ListwiseKL(),)
    domain: str = "target"

    @property
    def wants(self) -> Mapping[str, str]:
        return {} if isinstance(self.sequence, Skip) else wanted_of_teachers(self.loss)


def prune(config: PruneConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:
    """data, mix, distil -> the pruned model's folder, shapes shrunk and recovered."""
    sequence, text = load_sequence(inputs["distil"]), load_item_encoder(inputs["distil"])
    if load_mix(inputs["distil"]) is not None and not (
        isinstance(config.sequence, Skip) and isinstance(config.text, Skip)
    ):
        raise UsageError("prune: a teacher that is a mix is served whole; give its variant prune: none")
    rng = seed_everything(config.seed, options)
    likes = LikesModel.load(inputs["distil"])
    if likes is not None and isinstance(config.sequence, StructuredSequence):
        # imported here: it cuts with this package
        from compress.likes.prune import prune_likes

        prune_likes(likes, config.sequence, config.loss, config.domain, config.seed, inputs, rng, out, options)
    elif sequence is not None and isinstance(config.sequence, StructuredSequence):
        prune_sequence(sequence, config.sequence, config.loss, config.domain, inputs, rng, out, options)
    elif isinstance(text, StaticEncoder) and isinstance(config.text, StructuredText):
        prune_static(text, config.text, inputs, out, options)
    elif isinstance(text, TextEncoder) and isinstance(config.text, StructuredText):
        prune_text(text, config.text, inputs, rng, out, options)
    else:
        link_tree(inputs["distil"], out)
