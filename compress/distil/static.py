"""The static student: one vector per token, distilled from the teacher's text encoder; a text is their mean."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from compress.distil.ridge import chosen_strengths, fitted, part, principal_axes
from compress.distil.texts import ItemTexts, TextReader
from compress.models.static import StaticEncoder, StaticShape
from compress.models.text import TextEncoder
from compress.stage import Entry, RunOptions, Shorthand, Skip
from compress.training.engine import device_of
from deploy.errors import UsageError


class Sif(Entry):
    """A token counts a / (a + p), p its share of all tokens of the item texts (Arora et al. 2017, section 3)."""

    name: Literal["sif"] = "sif"
    a: PositiveFloat = 1e-3

    def __call__(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """Counts of each token in the texts, (vocabulary,) -> weights, (vocabulary,), in (0, 1]."""
        return np.asarray(self.a / (self.a + counts / counts.sum()))


class Zipf(Entry):
    """SIF with p = (1 / rank) / sum of that, the rank being the token's place in the vocabulary, as Model2Vec has it.

    For a vocabulary in the order of a large corpus, which says more than a few item texts do.
    """

    name: Literal["zipf"] = "zipf"
    a: PositiveFloat = 1e-4

    def __call__(self, counts: NDArray[np.float64]) -> NDArray[np.float64]:
        """As `Sif`; only the number of tokens is read."""
        return Sif(a=self.a)(1.0 / np.arange(2.0, len(counts) + 2))


class Ridge(Entry):
    """Fit to the teacher's item vectors by ridge regression: an affine map of all rows, then each row's own change.

    A token that no text has keeps the teacher's vector through the map. The texts held out choose both strengths, and
    the error reported is on them; the rows are then fitted to all texts.
    """

    name: Literal["ridge"] = "ridge"


Weighting = Annotated[Sif | Zipf | Skip, Field(discriminator="name"), Shorthand]


class StaticStudent(TextReader):
    """A token table. With `dim` it is cut to as many dimensions by PCA and a head leads back to the teacher's.

    Model2Vec (Tulkens and van Dongen 2024) has the start: each token alone through the encoder, PCA, weights by
    frequency; POTION the fit to the encoder's vectors of whole texts and PCA after it.
    """

    name: Literal["static"] = "static"
    dim: PositiveInt | None = None
    weighting: Weighting = Zipf()
    fit: Annotated[Ridge | Skip, Field(discriminator="name"), Shorthand] = Ridge()


@dataclass(frozen=True)
class Start:
    """Where a token table starts: its encoder, still empty, the rows (vocabulary, dim) and what they are fitted to, the
    texts to learn from first, those held out behind them; `variance` is that of the item texts' vectors."""

    encoder: StaticEncoder
    rows: Tensor
    shares: Tensor
    wanted: Tensor
    held_out: Tensor
    variance: float

    def read(self) -> tuple[Tensor, Tensor]:
        """shares and wanted of the texts to learn from."""
        return part(self.shares, ~self.held_out), self.wanted[~self.held_out]

    def error(self) -> float:
        """1 - explained variance, on the texts held out."""
        return unexplained(self.encoder, part(self.shares, self.held_out), self.wanted[self.held_out], self.variance)


def started(
    shape: Callable[[int], StaticShape],
    weighting: Weighting,
    teacher: TextEncoder,
    texts: ItemTexts,
    options: RunOptions,
) -> Start:
    """The teacher's vectors of single tokens, weighted. `shape` is asked with the number of tokens. Raises ValueError
    where no text is held out."""
    if not texts.held_out:
        raise ValueError(f"texts: at least two (got {len(texts.items)})")
    teacher.to(device_of(options))
    every = [*texts.learned, *texts.held_out]
    wanted = torch.from_numpy(teacher.encode(every)).double()
    ids, mask = teacher.tokenize(every)
    vocabulary = teacher.tokenizer.get_vocab_size()
    counts = np.bincount(ids[mask > 0].numpy(), minlength=vocabulary).astype(np.float64)
    rows = torch.from_numpy(token_vectors(teacher, vocabulary)).double()
    if not isinstance(weighting, Skip):
        rows *= torch.from_numpy(weighting(counts))[:, None]
    held_out = torch.arange(len(every)) >= len(texts.learned)
    of_items = torch.cat([wanted[: len(texts.read)], wanted[held_out]])
    variance = float(of_items.var(0, unbiased=False).mean())
    encoder = StaticEncoder(teacher.tokenizer, shape(vocabulary))
    return Start(encoder, rows, token_shares(ids, mask, vocabulary), wanted, held_out, variance)


def distil_static(
    student: StaticStudent, teacher: TextEncoder, texts: ItemTexts, options: RunOptions
) -> tuple[StaticEncoder, float]:
    """The student, and 1 - its explained variance of the teacher's item vectors on the texts held out.

    Raises ValueError for fewer than two texts, UsageError for more dimensions than the teacher's.
    """
    if student.dim is not None and student.dim > teacher.dim:
        raise UsageError(f"distil.student.dim: at most {teacher.dim}, the teacher's (got {student.dim})")

    def shape(vocabulary: int) -> StaticShape:
        return StaticShape(vocabulary=vocabulary, dim=teacher.dim, max_tokens=teacher.max_tokens, rank=student.dim)

    start = started(shape, student.weighting, teacher, texts, options)
    if isinstance(student.fit, Ridge):
        shares, wanted = start.read()
        strengths = chosen_strengths(start.rows, start.shares, start.wanted, start.held_out)
        fill(start.encoder, fitted(start.rows, shares, wanted, strengths), shares)
        left = start.error()
        fill(start.encoder, fitted(start.rows, start.shares, start.wanted, strengths), start.shares)
    else:
        fill(start.encoder, start.rows, start.shares)
        left = start.error()
    options.log(f"distil static: unexplained variance of the teacher's item vectors {left:.4f} on texts held out")
    return start.encoder, left


def token_vectors(teacher: TextEncoder, vocabulary: int) -> NDArray[np.float32]:
    """Each token alone, framed as the tokenizer frames a text -> the teacher's vectors (vocabulary, dim)."""
    probe = teacher.tokenizer.encode("a")
    own = [place for place, special in enumerate(probe.special_tokens_mask) if not special]
    before, after = (
        probe.ids[: own[0]],
        [i for i, m in zip(probe.ids, probe.attention_mask, strict=True) if m][own[-1] + 1 :],
    )
    ids = torch.tensor([[*before, token, *after] for token in range(vocabulary)], dtype=torch.int64)
    return teacher.encode_tokens(ids, torch.ones_like(ids))


def token_shares(ids: Tensor, mask: Tensor, vocabulary: int) -> Tensor:
    """ids, mask (texts, tokens) int64 -> sparse float64 (texts, vocabulary): a text's mean is this times the rows."""
    text, place = mask.nonzero(as_tuple=True)
    share = 1.0 / mask.sum(1).double()
    index = torch.stack([text, ids[text, place]])
    return torch.sparse_coo_tensor(index, share[text], (len(ids), vocabulary), check_invariants=True).coalesce()


def fill(encoder: StaticEncoder, rows: Tensor, shares: Tensor) -> None:
    """rows (vocabulary, dim) -> the encoder's table: the rows, or their coordinates on the texts' principal axes."""
    with torch.no_grad():
        if isinstance(encoder.head, nn.Linear):
            centre, axes = principal_axes(torch.sparse.mm(shares, rows), encoder.head.in_features)
            encoder.head.weight.copy_(axes)
            encoder.head.bias.copy_(centre)
            rows = (rows - centre) @ axes
        encoder.table.copy_(rows)
    encoder.eval()


def unexplained(encoder: StaticEncoder, shares: Tensor, wanted: Tensor, variance: float) -> float:
    """Mean squared error of texts by their shares, wanted (texts, dim), over `variance` (mean over dimensions)."""
    with torch.no_grad():
        found = encoder.head(torch.sparse.mm(shares, encoder.table.double()).float()).double()
    return float((found - wanted).square().mean()) / variance
