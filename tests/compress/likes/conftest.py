"""A small published like/dislike split, made by hand in the files' own form, and what the stages make of it."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from compress.data.load import DataConfig, load_data
from compress.stage import RunOptions

ITEMS = """item_id:token\ttitle:token_seq\tgenre:token_seq\trelease_year:token
a\tRed River\twestern | drama\t1948
b\tRed Dust\tdrama\t1932
c\tBlue Velvet\tthriller\t1986
d\tBlue Steel\tthriller\t1990
e\tThe "Quote"\tcomedy\t
"""
HEADER = "user_id:token\titem_id:token\trating:float\ttimestamp:float\titem_id_list:token_seq\trating_list:token_seq\n"
TRAIN = HEADER + "u1\tb\t1\t10\ta\t1\nu1\tc\t0\t20\ta b\t1 1\nu2\td\t1\t15\t\t\nu2\ta\t0\t16\td e\t1 0\n"
VALID = HEADER + "u2\tb\t0\t30\td e a\t1 0 0\nu3\tc\t1\t31\td\t1\nu3\ta\t0\t32\td c\t1 1\n"
TEST = HEADER + "u3\te\t1\t40\td c\t1 1\nu3\tb\t0\t41\td c e\t1 1 1\nu4\ta\t1\t42\t\t\n"

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """write(train=..., valid=..., test=..., items=...) -> a data set's folder; None leaves a file out."""

    def files(
        train: str | None = TRAIN, valid: str | None = VALID, test: str | None = TEST, items: str | None = ITEMS
    ) -> Path:
        folder = tmp_path / "tiny"
        folder.mkdir()
        parts = {"train.inter": train, "valid.inter": valid, "test.inter": test, "item": items}
        for name, text in parts.items():
            if text is not None:
                (folder / f"tiny.{name}").write_text(text, encoding="utf-8", newline="\n")
        return folder

    return files


def config(folder: Path, **split: object) -> DataConfig:
    domain = {"from": str(folder), "list_separator": " | ", "text": "{title}. {genre}"}
    return DataConfig.model_validate({"domains": {"target": domain}, "split": {"name": "published", **split}})


@pytest.fixture
def load(tmp_path: Path) -> Callable[..., Path]:
    """load(folder, **fields of the split) -> a `data` artifact."""

    def run(folder: Path, **split: object) -> Path:
        out = tmp_path / f"data-{len(list(tmp_path.iterdir()))}"
        out.mkdir()
        load_data(config(folder, **split), {}, out, RunOptions())
        return out

    return run


@pytest.fixture(scope="session")
def taste_data(build: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A `data` artifact of 60 users who like one of two genres, and rows enough to learn it from."""
    rng = np.random.default_rng(0)
    folder = tmp_path_factory.mktemp("taste") / "taste"
    folder.mkdir()
    genres = ["comedy", "horror"]
    names = [f"{genres[i % 2]} film {i}" for i in range(40)]
    lines = [f"i{i}\t{name}\t{genres[i % 2]}\t{1950 + i}" for i, name in enumerate(names)]
    header = "item_id:token\ttitle:token_seq\tgenre:token_seq\trelease_year:token\n"
    (folder / "taste.item").write_text(header + "\n".join(lines) + "\n", encoding="utf-8")
    rows: dict[str, list[str]] = {"train": [], "valid": [], "test": []}
    for user in range(60):
        seen = rng.permutation(40)[:16]
        likes = [int((item % 2 == user % 2) ^ (rng.random() < 0.1)) for item in seen]
        for place in range(6, 16):
            split = "train" if user < 40 else "valid" if user < 50 else "test"
            history = " ".join(f"i{item}" for item in seen[place - 6 : place])
            marks = " ".join(str(like) for like in likes[place - 6 : place])
            time = 1000 * user + place
            rows[split].append(f"u{user}\ti{seen[place]}\t{likes[place]}\t{time}\t{history}\t{marks}")
    for split, found in rows.items():
        (folder / f"taste.{split}.inter").write_text(HEADER + "\n".join(found) + "\n", encoding="utf-8")
    return build(load_data, config(folder))
