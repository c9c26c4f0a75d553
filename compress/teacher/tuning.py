"""How a teacher's language model moves: its top layers, low-rank additions to them, or all of it."""

from typing import Annotated, ClassVar, Literal

from pydantic import Field, PositiveFloat, PositiveInt
from torch import nn

from compress.models.text import TextEncoder
from compress.stage import Entry, Shorthand


class Moved(Entry):
    """What the ways share: `frozen_below` says that the layers below the first trained one never change."""

    frozen_below: ClassVar[bool] = True

    def start_epoch(self, text: TextEncoder, trained_layers: int, number: int) -> None:
        """Before the `number`th epoch, from 1, in which the language model moves."""

    def merge(self, text: TextEncoder) -> None:
        """After training: leave a plain model, with no part that only training needs."""


class TopLayers(Moved):
    """The weights of the last `trained_layers` layers; what enters them is computed once."""

    name: Literal["top_layers"] = "top_layers"

    def __call__(self, text: TextEncoder, trained_layers: int) -> int:
        """Set what is trained; returns the first layer that is."""
        return text.train_layers(trained_layers)


class Gradual(Moved):
    """The weights of the last `trained_layers` layers, the last layer first and one more below it every `epochs` epochs
    (gradual unfreezing: Howard and Ruder 2018, section 3.3). What is not yet unfrozen gets no gradient and no decay."""

    name: Literal["gradual"] = "gradual"
    epochs: PositiveInt = 1

    def __call__(self, text: TextEncoder, trained_layers: int) -> int:
        """Set what will be trained in the end; returns the first layer of it."""
        return text.train_layers(trained_layers)

    def start_epoch(self, text: TextEncoder, trained_layers: int, number: int) -> None:
        """Unfreeze as many layers from the top as epochs came, and never more than are trained in the end."""
        text.train_layers(min(trained_layers, 1 + (number - 1) // self.epochs))


class Lora(Moved):
    """Low-rank additions to every linear map of the last `trained_layers` layers, scaled by alpha / rank (Hu et al.
    2022, section 4.1). `merge` adds them to the weights, so that what is saved is a plain model."""

    name: Literal["lora"] = "lora"
    rank: PositiveInt = 8
    alpha: PositiveFloat = 16.0

    def __call__(self, text: TextEncoder, trained_layers: int) -> int:
        """Put the additions in and set them alone to be trained; returns the first layer that has some."""
        from peft import LoraConfig, inject_adapter_in_model

        first = max(0, len(text.layers) - trained_layers)
        text.train_layers(0)
        targets = [
            f"{text.family.layers_at}.{first + index}.{name}"
            for index, layer in enumerate(text.layers[first:])
            for name, module in layer.named_modules()
            if isinstance(module, nn.Linear)
        ]
        if targets:
            config = LoraConfig(r=self.rank, lora_alpha=self.alpha, target_modules=targets)  # type: ignore[arg-type]
            inject_adapter_in_model(config, text.lm)
        return first

    def merge(self, text: TextEncoder) -> None:
        """Add the low-rank products to the weights they belong to, in place."""
        from peft.tuners.lora import LoraLayer

        for name, module in list(text.lm.named_modules()):
            if isinstance(module, LoraLayer):
                module.merge(safe_merge=True)
                text.lm.set_submodule(name, module.get_base_layer())


class Full(Moved):
    """Every weight, word embeddings included, whatever `trained_layers` says; nothing can be computed beforehand."""

    name: Literal["full"] = "full"
    frozen_below: ClassVar[bool] = False

    def __call__(self, text: TextEncoder, trained_layers: int) -> int:
        """Set everything to be trained; returns 0."""
        del trained_layers
        return text.train_layers(len(text.layers))


Tuning = Annotated[TopLayers | Gradual | Lora | Full, Field(discriminator="name"), Shorthand]
