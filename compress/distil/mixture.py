"""The weighted mix of losses that a student minimises, with what each of them trains of its own."""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from compress.distil.losses import SequenceLoss, SoftLabels
from compress.distil.step import NEEDS, DistilLoss, Listed, Step, Teaching
from compress.stage import Skip
from compress.training.softmax import NextItem
from deploy.errors import UsageError

Table = Callable[[Tensor | None], Tensor]
"""Rows (n,) int64, or None for all -> the student's item vectors."""


class Distillation(nn.Module):
    """Losses of one student, their `heads` and the teacher they read. The heads are trained beside the student, never
    part of it."""

    def __init__(self, losses: Sequence[SequenceLoss], teaching: Teaching, table: Tensor, warm: Tensor) -> None:
        """`table` (n_items + 1, dim): the student's item vectors at the start; `warm` (n_items + 1,) bool: items with
        training events. Raises UsageError where a loss needs what this teacher did not leave; a teacher that left no
        scores at all is none (a control's), and what would need them is left out."""
        super().__init__()
        self.losses, self.teaching = tuple(_usable(losses, teaching)), teaching
        self.needs: frozenset[str] = frozenset().union(*(loss.needs for loss in self.losses))
        self.heads = nn.ModuleList(loss.head(table, teaching) for loss in self.losses)
        self.lists = self._lists()
        self.candidates = int(warm.sum())
        self._on_device: dict[str, Tensor] = {}

    def listed(self, at: Tensor, device: torch.device) -> Tensor | None:
        """Rows whose student logits the losses want at the positions `at`: (len(at), n) int64 on `device`, the best
        first."""
        parts = [rows[at] for rows, _ in self.lists.values()]
        return torch.cat(parts, 1).to(device) if parts else None

    def forward(self, scored: NextItem, at: Tensor, targets: Tensor, left_out: Tensor, table: Table) -> Tensor:
        """The scored step whose positions are `at` (positions,) -> the mixed loss, a scalar. Where there is no teacher
        the observed items take its weight."""
        whole, share = scored.loss, 1.0
        if not self.losses:
            return whole
        step = self._step(scored, at, targets, left_out, table)
        if self.teaching.taught is not None:
            known = self.teaching.taught[at].to(targets.device)
            if not known.any():
                return whole
            share = float(known.float().mean())
            step = step.at(known)
        for loss, head in zip(self.losses, self.heads, strict=True):
            weight = loss.weight * share
            whole = (1 - weight) * whole + weight * loss(step, head)
        return whole

    def _lists(self) -> dict[str, tuple[Tensor, Tensor]]:
        """Items and scores of what the losses need, as deep as they read: (all positions, n) each."""
        teaching, depths = self.teaching, [loss.depth for loss in self.losses if "best" in loss.needs]
        depth = None if None in depths else max((d for d in depths if d is not None), default=0)
        found = {
            "best": (teaching.items, teaching.scores, depth),
            "tail": (teaching.tail_items, teaching.tail_scores, None),
        }
        return {
            name: (items[:, :most], scores[:, :most])
            for name, (items, scores, most) in found.items()
            if name in self.needs and items is not None and scores is not None
        }

    def _step(self, scored: NextItem, at: Tensor, targets: Tensor, left_out: Tensor, table: Table) -> Step:
        device, lists, start = targets.device, {}, 0
        for name, (rows, scores) in self.lists.items():
            assert scored.logits is not None
            stop = start + rows.shape[1]
            lists[name] = Listed(rows[at].to(device), scores[at].to(device), scored.logits[:, start:stop])
            start = stop
        users = self.teaching.user_vectors if "user_vectors" in self.needs else None
        items = self.teaching.item_vectors if "item_vectors" in self.needs else None
        best = self.teaching.items
        return Step(
            targets=targets,
            users=scored.users,
            vectors=scored.vectors,
            table=lambda: table(None),
            left_out=left_out,
            best=lists.get("best"),
            tail=lists.get("tail"),
            tail_size=0 if best is None else self.candidates - best.shape[1],
            normalisers=scored.normalisers,
            teacher_users=None if users is None else users[at].to(device),
            teacher_table=self._kept("table", self.teaching.table, device) if users is not None else None,
            teacher_items=None if items is None else self._kept("items", torch.from_numpy(items), device),
        )

    def _kept(self, name: str, tensor: Tensor | None, device: torch.device) -> Tensor | None:
        """Whole tables go to the device once; what belongs to positions goes there step by step."""
        if tensor is not None and name not in self._on_device:
            self._on_device[name] = tensor.to(device)
        return self._on_device.get(name)


def _usable(losses: Sequence[SequenceLoss], teaching: Teaching) -> list[DistilLoss]:
    usable: list[DistilLoss] = []
    for loss in losses:
        if isinstance(loss, Skip):
            continue
        if isinstance(loss, SoftLabels):
            raise UsageError("distil.loss: soft_labels is for like/dislike rows; a ranking has none (got soft_labels)")
        missing = loss.needs - teaching.left
        if missing and "best" in teaching.left:
            raise UsageError(f"distil.loss: {loss.name} needs {NEEDS[min(missing)]} (got a teacher without)")
        if not missing:
            usable.append(loss)
    return usable
