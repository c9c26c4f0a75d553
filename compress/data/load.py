"""The stage `data`: sources -> checked, filtered, split and segmented domains."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field, field_validator, model_validator

from compress.data.domains import DomainConfig, chosen_items, events_on, item_texts, take_items
from compress.data.likes import like_domain, source_files
from compress.data.order import in_random_order, train_on_few_events, train_on_some_users
from compress.data.sources import read_source, source_digest, source_name
from compress.data.splits import LeaveOneOut, Published, RandomLiked, Split, make_cold
from compress.data.write import list_separators, write_domain
from compress.stage import Inputs, RunOptions, StageConfig
from deploy.errors import UsageError

TARGET = "target"
PROTOCOL_NAMES = {
    "leave_one_out": "leave-one-out",
    "random_liked": "random-liked",
    "time": "time",
    "user_folds": "user-folds",
    "published": "published",
}


class DataConfig(StageConfig):
    """The domains of a recipe; `target` is the one students serve, `source` the richer one a teacher starts on."""

    domains: dict[str, DomainConfig] = Field(min_length=1, max_length=8)
    split: Split = LeaveOneOut()
    min_events: int = Field(default=3, ge=2, le=1000, description="users with fewer are left out")
    on_short_users: Literal["drop", "error"] = "drop"
    cold_fraction: float = Field(default=0.0, ge=0, le=0.5, description="share of items made cold")
    min_rating: float | None = Field(default=None, description="keep interactions rated at least this")
    max_text_chars: int = Field(default=2000, ge=1, le=100_000, description="an item's text is cut here")

    @field_validator("domains")
    @classmethod
    def _linked(cls, domains: dict[str, DomainConfig]) -> dict[str, DomainConfig]:
        if TARGET not in domains:
            raise ValueError(f"one domain is called {TARGET}: students serve it (got {', '.join(domains)})")
        for name, domain in domains.items():
            if not name.isidentifier():
                raise ValueError(f"a domain's name has letters, digits and _ (got {name!r})")
            other = domain.not_in
            if other is not None and (other == name or other not in domains):
                raise ValueError(f"{name}.not_in: names another domain of {', '.join(domains)} (got {other!r})")
        return domains

    @model_validator(mode="after")
    def _published_as_it_is(self) -> "DataConfig":
        if not isinstance(self.split, Published):
            return self
        changed = [name for name in ("cold_fraction", "min_rating") if getattr(self, name)]
        changed += [f"domains.{name}" for name, domain in self.domains.items() if domain.items or domain.not_in]
        if changed:
            raise ValueError(f"a published split is taken as it is: leave out {', '.join(changed)}")
        return self


def source_digests(config: DataConfig) -> Mapping[str, str]:
    """Per domain a digest of the data's content: it enters the stage's key. Raises UsageError on missing files."""
    if isinstance(config.split, Published):
        return {n: source_files(f"data.domains.{n}", d.source).digest() for n, d in config.domains.items()}
    return {name: source_digest(domain.source) for name, domain in config.domains.items()}


def load_data(config: DataConfig, inputs: Inputs, out: Path, options: RunOptions) -> None:  # noqa: ARG001
    """Writes `dataset.json` and `domains/<name>/` (docs/ARCHITECTURE.md). Raises UsageError."""
    described = {name: _domain(config, name, out / "domains" / name, options) for name in config.domains}
    task = {"task": "likes"} if isinstance(config.split, Published) else {}
    content = {
        **task,
        "name": source_name(config.domains[TARGET].source),
        "protocol": {"split": _protocol(config), "ranking": "full", "seen_excluded": True},
        "target": TARGET,
        "domains": described,
    }
    (out / "dataset.json").write_text(json.dumps(content, indent=1, sort_keys=True) + "\n", "utf-8")


def _has_order(config: DataConfig, name: str) -> bool:
    return config.domains[name].order == "time" and not isinstance(config.split, RandomLiked)


def _protocol(config: DataConfig) -> str:
    """What is asked of the target: a user's last event, where there is an order to speak of."""
    ordered = _has_order(config, TARGET) or not isinstance(config.split, LeaveOneOut)
    return PROTOCOL_NAMES[config.split.name if ordered else "random_liked"]


def _domain(config: DataConfig, name: str, out: Path, options: RunOptions) -> dict[str, Any]:
    where, domain = f"data.domains.{name}", config.domains[name]
    if isinstance(config.split, Published):
        return like_domain(where, domain, config.split, config.max_text_chars, config.seed, out, options)
    everything, interactions, path = read_source(domain.source, domain.columns, domain.list_separator)
    mask = chosen_items(where, domain.items, domain.list_separator, everything)
    if domain.not_in is not None:
        others = _item_ids(config, domain.not_in)
        mask &= np.array([item not in others for item in everything.ids])
    items = take_items(everything, mask)
    if not len(items):
        raise UsageError(f"{where}.items: no item is left; widen the filter (got 0 of {len(everything)})")
    texts = item_texts(where, domain.text, items, config.max_text_chars)
    events, dropped = events_on(interactions, items.ids, config.min_rating, where)
    counts = np.diff(events.offsets)
    enough = counts >= config.min_events
    short = np.flatnonzero(~enough & (counts > 0))
    if config.on_short_users == "error" and len(short):
        users = [f"{events.users[u]} ({counts[u]} events)" for u in short[:5]]
        raise UsageError(
            f"{path}, {where}: {len(short)} users with fewer than {config.min_events} events; lower min_events or "
            f"set on_short_users: drop (got {', '.join(users)}{', ...' if len(short) > 5 else ''})"
        )
    if not enough.any():
        raise UsageError(f"{path}, {where}: no user has {config.min_events} events (got at most {max(counts)})")
    events = events.keep_users(enough)
    timed = interactions.timed and _has_order(config, name)
    if not _has_order(config, name):
        events = in_random_order(events, config.seed)
    events, cold = make_cold(events, len(items), config.cold_fraction, config.seed)
    division = config.split(events, timed)
    division = train_on_some_users(division, events, domain.train_users, config.seed)
    division = train_on_few_events(division, events, domain.few_shot, config.seed)
    dropped |= {"short_users": len(short), "users_without_events": int((counts == 0).sum())}
    write_domain(out, items, texts, events, division, cold)
    options.log(
        f"{name}: {len(events.users)} users, {len(items)} items, {len(events.rows)} interactions; "
        f"left out {', '.join(f'{count} {what}' for what, count in dropped.items())}"
    )
    return {
        "source": source_name(domain.source),
        "users": len(events.users),
        "items": len(items),
        "interactions": len(events.rows),
        "timed": timed,
        "list_separators": list_separators(items, domain),
        "cold_items": len(cold.items),
        "cases": {"valid": len(division.valid.users), "test": len(division.test.users), "cold": len(cold.users)},
        "dropped": dropped,
    }


def _item_ids(config: DataConfig, name: str) -> set[str]:
    # The items that a domain's own filter picks; its `not_in` is not followed, so that two domains may exclude
    # each other without a circle.
    domain = config.domains[name]
    items, _, _ = read_source(domain.source, domain.columns, domain.list_separator)
    mask = chosen_items(f"data.domains.{name}", domain.items, domain.list_separator, items)
    return set(take_items(items, mask).ids)
