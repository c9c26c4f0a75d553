"""`card.md` and `licences.md`: what people read of a bundle before they run it. Every number is the evidence's."""

from collections.abc import Iterator, Mapping, Sequence
from importlib import resources
from typing import Any

from benchmarks.result import TITLES
from compress.provenance import Provenance

APACHE = "Apache-2.0"


def card(name: str, model: Mapping[str, Any], evidence: Mapping[str, Any], origin: Provenance) -> bytes:
    """The model card (Mitchell et al., Model Cards for Model Reporting, 2019) in Markdown.

    model: the manifest's section. evidence: `evidence.json`'s content.
    """
    graphs = ", ".join(f"`{file}` ({precision})" for precision, file in sorted(model["precisions"].items()))
    text = model["text"]
    lms = ", ".join(f"{lm.name} ({lm.licence})" for lm in origin.language_models) or "none"
    lines = [
        f"# {name}",
        "",
        f"A recommender of {model['n_items']} items: from the most recent {model['max_history']} items of a history it "
        "gives the best further ones. It reads item ids and nothing else of a user.",
        "",
        "## What is inside",
        "",
        f"- Graphs: {graphs}; `{model['default']}` is the one that measurement chose.",
        "- Text encoder: " + (f"`{text['graph']}`, places a new item by its text." if text else "none."),
        *(["- Like graphs: how likely a like of one item is."] if model.get("likes") else []),
        f"- Language models it descends from: {lms}.",
        *(f"- Data: {line}" for line in _data(origin)),
        "",
        "## How good it is",
        "",
        *_accuracy(shipped_rows(evidence)),
        "",
        "## How fast it was",
        "",
        *_latency(evidence),
        "",
        "## What it is for, and what not",
        "",
        "- For ranking this catalogue for users like those of the data. Scores order items for one user; they are not "
        "probabilities and mean nothing across users or bundles.",
        "- A history without a known item gets what was popular when the bundle was made.",
        "- It repeats what its data prefer: popular items, and the tastes of those who rated much. The rows of tail "
        "items and short histories above say by how much.",
        "- Terms of the data hold for the bundle too (titles and attributes are inside): `licences.md`.",
        "",
        "`evidence.json` has all measurements, `provenance.json` the digests of what it was made from, `sbom.cdx.json` "
        "every file and the runtime's packages.",
    ]
    return ("\n".join(lines) + "\n").encode()


def licences(origin: Provenance) -> bytes:
    """Every licence and all terms, with the text of those that ask for it."""
    lines = [
        "# Licences and terms",
        "",
        f"The bundle as a whole: {origin.licence}.",
        "",
        "| what it was made from | licence or terms |",
        "|---|---|",
        *(f"| language model {lm.name} | {lm.licence} |" for lm in origin.language_models),
        *(f"| data {name} | {terms} |" for name, terms in {d.name: d.terms for d in origin.data}.items()),
        "",
        "The packages that run it are not inside; `sbom.cdx.json` lists them with their licences.",
    ]
    if any(lm.licence == APACHE for lm in origin.language_models):
        text = resources.files("compress").joinpath("licences", f"{APACHE}.txt").read_text("utf-8")
        lines += ["", f"## {APACHE}", "", "```", text.strip("\n"), "```"]
    return ("\n".join(lines) + "\n").encode()


def shipped_rows(evidence: Mapping[str, Any]) -> list[tuple[str, Mapping[str, Any]]]:
    """(precision, measured row) of every history graph that ships."""
    rows = {row["name"]: row for row in evidence["models"]}
    return [(precision, rows[name]) for precision, name in sorted(evidence["graphs"].items())]


def _data(origin: Provenance) -> Iterator[str]:
    for data in origin.data:
        yield (
            f"{data.name} as domain `{data.domain}`: {data.users} users, {data.items} items, {data.interactions} "
            f"interactions ({data.terms})."
        )


def _accuracy(shipped: Sequence[tuple[str, Mapping[str, Any]]]) -> Iterator[str]:
    """The test's figures of every graph that ships, and those of the segments."""
    first = shipped[0][1]["accuracy"]["test"]
    metrics = [metric for metric in ("ndcg@10", "recall@10", "auc", "uauc") if first.get(metric) is not None]
    head = [TITLES.get(metric, metric) for metric in metrics]
    yield f"| graph | part of the test | users or rows | {' | '.join(head)} |"
    yield f"|---|---|---|{'---|' * len(head)}"
    for precision, row in shipped:
        accuracy = row["accuracy"]
        parts = {"all": accuracy["test"], **accuracy.get("segments", {})}
        for part, figures in parts.items():
            if figures:
                cells = [_figure(figures, metric) for metric in metrics]
                yield f"| {precision} | {part.replace('_', ' ')} | {figures['cases']} | {' | '.join(cells)} |"


def _figure(figures: Mapping[str, Any], metric: str) -> str:
    value, interval = figures.get(metric), figures.get(f"{metric}_ci95")
    if value is None:
        return ""
    return f"{value:.4f}" + (f" [{interval[0]:.4f}, {interval[1]:.4f}]" if interval else "")


def _latency(evidence: Mapping[str, Any]) -> Iterator[str]:
    machine = evidence["machine"]
    yield f"On {machine['cpu']} ({machine['system']}), ids to ids; measure again on the device: `slimrec bench`."
    yield ""
    yield "| graph | path | threads | history | p50 ms | p99 ms |"
    yield "|---|---|---|---|---|---|"
    for precision, row in shipped_rows(evidence):
        for timed in row["latency"]:
            yield (
                f"| {precision} | {timed['path']}, {timed['runtime']}, {timed['device']} | {timed['threads']} "
                f"| {timed['history']} | {timed['p50_ms']:.3f} | {timed['p99_ms']:.3f} |"
            )
