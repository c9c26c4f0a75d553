"""The two-level teacher: item text -> LM -> item vector; causal sequence encoder over item vectors -> user vector.

As UniSRec (Hou et al. 2022, sections 2.1-2.2), but the LM itself is trained. A step cannot afford the LM on every
item, so the vectors of all items lie in a bank; each step computes some of its batch's items afresh with gradient and
writes them back (the memory bank of Wu et al. 2018, section 3.1). Layers that stay frozen run once: what enters the
first trained layer is cached.
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import NonNegativeInt, PositiveFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional

from compress.data.dataset import Dataset
from compress.models.sequence import EncoderSizes, SequenceEncoder, SequenceModel
from compress.models.text import TextEncoder
from compress.models.tokens import by_length
from compress.stage import RunOptions, Skip
from compress.teacher.domains import DomainEntry, DomainPart, Own
from compress.teacher.tuning import TopLayers, Tuning
from compress.teacher.wording import Rewording, Wordings
from compress.training import Fit, Training, batches, fit, validation_ndcg, warm_items
from compress.training.softmax import next_item_loss


class TwoLevel(EncoderSizes):
    """Sizes and training of a two-level teacher."""

    name: Literal["two_level"] = "two_level"
    dim: PositiveInt = 128
    heads: PositiveInt = 4
    neurons: PositiveInt = 256
    id_vectors: bool = True  # warm items also get a free vector, which text alone cannot give
    trained_layers: NonNegativeInt = 2
    tuning: Tuning = TopLayers()
    texts_per_step: PositiveInt = 64
    text_learning_rate_factor: PositiveFloat = 0.05
    frozen_epochs: NonNegativeInt = 2  # epochs before the LM starts to move, so that its first gradients mean something
    text_epochs: NonNegativeInt = 6  # epochs in which the LM moves; then its vectors stay and epochs are cheap
    rewording: Rewording = Rewording()
    gradient_checkpointing: bool = False  # of the LM's trained layers: less memory, a third more time
    domain: DomainEntry = Skip()  # what item vectors owe to their domain alone
    training: Training = Training(epochs=20)


class TwoLevelTeacher(nn.Module):
    """The parts in training: the text encoder's trained layers and head, id vectors, sequence encoder."""

    warm: Tensor
    mask: Tensor
    tokens: Tensor | None
    lower: Tensor
    bank: Tensor

    def __init__(
        self,
        config: TwoLevel,
        text: TextEncoder,
        dataset: Dataset,
        encoder: SequenceEncoder | None,
        domain_of: Tensor | None = None,
    ) -> None:
        """`domain_of` (n_items,) int64: each item's domain, where the data are several domains at once."""
        super().__init__()
        self.shape = config.shape(dataset.n_items)
        if text.dim != config.dim or isinstance(text.head, nn.Identity):
            text.head = nn.Linear(text.hidden_size, config.dim, bias=False)
        self.text = text
        self.first = config.tuning(text, config.trained_layers)
        text.gradient_checkpointing = config.gradient_checkpointing
        self.encoder = encoder or SequenceEncoder(self.shape)
        self.ids = nn.Parameter(torch.zeros(dataset.n_items + 1, config.dim), requires_grad=config.id_vectors)
        self.own: DomainPart | None = None
        if isinstance(config.domain, Own):
            domain_of = torch.zeros(dataset.n_items, dtype=torch.int64) if domain_of is None else domain_of
            self.own = DomainPart(config.domain, text.hidden_size, config.dim, domain_of)
        self.register_buffer("warm", warm_items(dataset).float()[:, None], persistent=False)
        tokens, mask = text.tokenize(dataset.texts)
        self.register_buffer("mask", mask, persistent=False)
        cached = config.tuning.frozen_below
        self.register_buffer("tokens", None if cached else tokens, persistent=False)
        self.register_buffer("lower", self._lower(tokens, mask) if cached else None, persistent=False)
        self.register_buffer("bank", torch.zeros(dataset.n_items, text.hidden_size))
        self.refresh()

    @torch.no_grad()
    def _lower(self, tokens: Tensor, mask: Tensor) -> Tensor:
        self.text.eval()
        states = torch.zeros(*tokens.shape, self.text.hidden_size)
        for index in by_length(mask):
            used = int(mask[index].sum(1).max())
            states[index, :used] = self.text.lower(tokens[index, :used], mask[index, :used], self.first)
        return states

    @torch.no_grad()
    def refresh(self) -> None:
        """Bring the bank of pooled LM states up to date for all items, without dropout."""
        training = self.text.training
        self.text.eval()
        for index in by_length(self.mask):
            self.bank[index] = self.pooled(index)
        self.text.train(training)

    def pooled(self, items: Tensor) -> Tensor:
        """Items (n,) int64 from 0 -> pooled LM states (n, hidden), through the trained layers."""
        mask = self.mask[items]
        used = int(mask.sum(1).max())
        mask = mask[:, :used]
        if self.tokens is None:
            return self.text.pooled(self.lower[items, :used], mask, self.first)
        return self.text.pooled(self.text.lower(self.tokens[items, :used], mask, self.first), mask, self.first)

    def pooled_texts(self, texts: Sequence[str]) -> Tensor:
        """Other texts than the items' own -> pooled LM states (n, hidden); frozen layers drop nothing out."""
        tokens, mask = (tensor.to(self.mask.device) for tensor in self.text.tokenize(texts))
        training = self.text.training
        self.text.train(training and self.tokens is not None)
        lower = self.text.lower(tokens, mask, self.first)
        self.text.train(training)
        return self.text.pooled(lower, mask, self.first)

    def text_vectors(
        self, fresh: Tensor | None = None, rows: Tensor | None = None, texts: Sequence[str] | None = None
    ) -> Tensor:
        """(n_items + 1, dim) from the bank, row 0 zero; the items `fresh` are computed now and carry gradient.

        With `rows`, ascending from row 0 and holding those of `fresh`, their vectors alone, (len(rows), dim). `texts`
        are what the LM reads for `fresh` in place of the items' own.
        """
        items = None if rows is None else rows[1:] - 1
        states = self.bank if items is None else self.bank[items]
        if fresh is not None:
            new = (self.pooled(fresh) if texts is None else self.pooled_texts(texts)).to(states.dtype)
            states = states.index_copy(0, fresh if items is None else torch.searchsorted(items, fresh), new)
            self.bank[fresh] = new.detach()
        vectors = self.text.head(states)
        if self.own is not None:
            vectors = vectors + self.own(states, items)
        return functional.pad(vectors, (0, 0, 1, 0))

    def table(
        self, fresh: Tensor | None = None, texts: Sequence[str] | None = None, rows: Tensor | None = None
    ) -> Tensor:
        """All item vectors (n_items + 1, dim), or those of `rows`; items without training events have text alone."""
        ids, warm = (self.ids, self.warm) if rows is None else (self.ids[rows], self.warm[rows])
        return self.text_vectors(fresh, rows, texts) + ids * warm

    def fold_domain(self) -> None:
        """Make the domain's own part one with the head, in place."""
        if self.own is not None and isinstance(self.text.head, nn.Linear):
            self.text.head, self.own = self.own.folded_into(self.text.head), None

    @torch.no_grad()
    def folded(self) -> SequenceModel:
        """The sequence model over the item table as it stands."""
        model = SequenceModel(self.shape).to(self.ids.device)
        model.item_table.copy_(self.table())
        model.encoder.load_state_dict(self.encoder.state_dict())
        return model.eval()

    def train_two_level(
        self, config: TwoLevel, dataset: Dataset, rng: np.random.Generator, options: RunOptions, what: str
    ) -> Fit:
        """Train on the domain's training events; leaves the state with the best validation NDCG@10."""
        training = config.training
        sequences = dataset.train_sequences()
        sampler = training.softmax.sampler(sequences, dataset.n_items, rng)
        left_out = training.softmax.left_out(self.warm[:, 0] > 0)
        wordings = Wordings(config.rewording, dataset, rng)
        device = self.ids.device

        def moves(number: int) -> bool:
            return bool(text) and 0 < number - config.frozen_epochs <= config.text_epochs

        def epoch(number: int) -> Iterator[Tensor]:
            if moves(number - 1) and not moves(number):
                self.refresh()  # what stays is what the texts now read as, without dropout
            self.text.train(moves(number))
            if moves(number):
                config.tuning.start_epoch(self.text, config.trained_layers, number - config.frozen_epochs)
            for inputs, targets, _ in batches(sequences, config.max_history, training, rng):
                fresh, texts = None, None
                if moves(number):
                    items = _some_items(targets, config.texts_per_step, rng)
                    fresh = torch.from_numpy(items).to(device)
                    texts = wordings(items) if config.rewording.active else None
                table = partial(self.table, fresh, texts)
                batch = inputs.to(device), targets.to(device)
                yield next_item_loss(table, self.encoder, batch, left_out, training.label_smoothing, sampler).loss

        def validate(number: int) -> float:
            if moves(number):
                self.refresh()
            return validation_ndcg(self.folded(), dataset)

        text = [p for p in self.text.lm.parameters() if p.requires_grad]
        rest = [*self.text.head.parameters(), *self.encoder.parameters()] + ([self.ids] if config.id_vectors else [])
        rest += [] if self.own is None else self.own.parameters()
        groups = [(rest, 1.0)] + ([(text, config.text_learning_rate_factor)] if text else [])
        result = fit(self, groups, training, epoch, validate, options, what, rng=rng)
        config.tuning.merge(self.text)
        self.refresh()
        return result


def _some_items(targets: Tensor, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
    """Up to `n` different items of the batch, counted from 0."""
    present = np.unique(targets[targets > 0].cpu().numpy()) - 1
    return np.sort(rng.choice(present, min(n, len(present)), replace=False))
