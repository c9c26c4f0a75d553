"""Amazon Reviews 2023 (McAuley Lab, UCSD), one category at a time.

Yupeng Hou et al.: Bridging Language and Items for Retrieval and Recommendation. arXiv:2403.03952.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Literal

from pydantic import BaseModel, ConfigDict

from compress.data.public.archives import columns, text_lines
from compress.data.public.download import Download
from compress.data.public.source import LISTS, PublicSource, Sha256, write_events
from deploy.columns import write_atomic
from deploy.errors import UsageError

HUB = "https://huggingface.co/datasets/McAuley-Lab/Amazon-Reviews-2023"
UCSD = "https://mcauleylab.ucsd.edu/public_datasets/data/amazon_2023"
MAX_BYTES = 50_000_000_000
MAX_CELL = 10_000
PUBLISHED = {
    "benchmark/5core/rating_only/Magazine_Subscriptions.csv": (
        "a39d13e4dff234585e83f0bbcec8bc5cf10e8de14e5754e00e54fcc9c132eb3e"
    ),
    "benchmark/0core/rating_only/Magazine_Subscriptions.csv": (
        "aafcdc89f141bb568c6125986bdc6808a4fe9b046625a47f9dea4aae8603dad9"
    ),
    "raw/meta_categories/meta_All_Beauty.jsonl": "1cfbdf6d2ccf9c3ac52a4508b15f31f8f340508a245b65c3e3b5f461e06e97ef",
    "raw/meta_categories/meta_Beauty_and_Personal_Care.jsonl": (
        "c8a69eba6579f1a3a2b6d6d564846f3c59839d0c859ff180a63a97a245c3bec2"
    ),
    "raw/meta_categories/meta_Electronics.jsonl": "5eb4dabd539586c49654297319ef178b62a2fe8e43108376feda125f04455d93",
    "raw/meta_categories/meta_Gift_Cards.jsonl": "7909903c85f0690b4ff653981724af1ea6473e7b21a7e32c7adae5026240808f",
    "raw/meta_categories/meta_Industrial_and_Scientific.jsonl": (
        "114fcde36f6205bde5d0ebed24613a35e475aa06b285011ed1e892dc26da3942"
    ),
    "raw/meta_categories/meta_Magazine_Subscriptions.jsonl": (
        "b325bc690a4b705338dfc3dd45ace5ec643dc6212cbb0c614a9b05f236ec12ab"
    ),
    "raw/meta_categories/meta_Video_Games.jsonl": "3ad94dfaa8dfed23c5f420aa9ddec415d00f2b8ec9f2d796f487b4b2c4d256de",
}
"""SHA-256 as the lab's pages on the Hugging Face hub show it ("Git LFS Details"), where such a page was seen."""

Category = Literal[
    "All_Beauty",
    "Amazon_Fashion",
    "Appliances",
    "Arts_Crafts_and_Sewing",
    "Automotive",
    "Baby_Products",
    "Beauty_and_Personal_Care",
    "Books",
    "CDs_and_Vinyl",
    "Cell_Phones_and_Accessories",
    "Clothing_Shoes_and_Jewelry",
    "Digital_Music",
    "Electronics",
    "Gift_Cards",
    "Grocery_and_Gourmet_Food",
    "Handmade_Products",
    "Health_and_Household",
    "Health_and_Personal_Care",
    "Home_and_Kitchen",
    "Industrial_and_Scientific",
    "Kindle_Store",
    "Magazine_Subscriptions",
    "Movies_and_TV",
    "Musical_Instruments",
    "Office_Products",
    "Patio_Lawn_and_Garden",
    "Pet_Supplies",
    "Software",
    "Sports_and_Outdoors",
    "Subscription_Boxes",
    "Tools_and_Home_Improvement",
    "Toys_and_Games",
    "Unknown",
    "Video_Games",
]


class Confirmed(BaseModel):
    """The SHA-256 of the two files a category needs, where none is known here or the lab has renewed them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    ratings: Sha256 | None = None
    metadata: Sha256 | None = None


class Amazon2023(PublicSource):
    """Amazon Reviews 2023: ratings of one category, users and items with `core` ratings at least, and item metadata.

    Items are parent products (`parent_asin`): those that are rated, in the order of first rating. The lab's own server
    (`ucsd`) has the files gzipped, a fifth of the size, but shows no checksums; the hub shows one for every file.
    """

    name: Literal["amazon-2023"] = "amazon-2023"
    terms: ClassVar[str] = (
        "McAuley Lab, UCSD; no licence on the data's card: ask the lab and Amazon before commercial use"
    )
    category: Category
    core: Literal[0, 5] = 5
    host: Literal["huggingface", "ucsd"] = "huggingface"
    sha256: Confirmed = Confirmed()

    @property
    def title(self) -> str:
        """`amazon-2023-<category>-<core>core`."""
        return f"{self.name}-{self.category}-{self.core}core"

    def downloads(self) -> tuple[Download, ...]:
        """Ratings (CSV) and metadata (JSON lines)."""
        ratings = f"benchmark/{self.core}core/rating_only/{self.category}.csv"
        metadata = f"raw/meta_categories/meta_{self.category}.jsonl"
        return (
            self._download("sha256.ratings", ratings, self.sha256.ratings),
            self._download("sha256.metadata", metadata, self.sha256.metadata),
        )

    def _download(self, confirm: str, path: str, given: str | None) -> Download:
        if self.host == "ucsd":
            return Download(f"amazon-2023/{path}.gz", f"{UCSD}/{path}.gz", given, MAX_BYTES, confirm)
        checksum = given or PUBLISHED.get(path)
        url, shown = f"{HUB}/resolve/main/{path}", f"{HUB}/blob/main/{path}"
        return Download(f"amazon-2023/{path}", url, checksum, MAX_BYTES, confirm, shown)

    def convert(self, files: Sequence[Path], folder: Path) -> None:
        """`user_id,parent_asin,rating,timestamp` in milliseconds; one JSON object per product, the first of equal ids.

        A rated product without metadata, or without a title, has its id as the title.
        """
        ratings, metadata = files
        users, items, stars, times = columns(
            str(ratings), text_lines(ratings), ("user_id", "parent_asin", "rating", "timestamp")
        )
        write_events(folder / f"{self.title}.inter", users, items, stars, [_seconds(ratings, t) for t in times])
        rated: dict[str, dict[str, str]] = {item: {} for item in items}
        for number, product in _products(metadata):
            asin = product.get("parent_asin")
            if asin in rated and not rated[asin]:
                rated[asin] = _cells(f"{metadata}, line {number}", product)
        table = {
            "item_id": list(rated),
            "title": [cells.get("title") or item for item, cells in rated.items()],
            **{name: [cells.get(name, "") for cells in rated.values()] for name in ("store", "categories", "price")},
        }
        write_atomic(folder / f"{self.title}.item", table, {"item_id": "token", "store": "token", "price": "token"})


def _seconds(path: Path, milliseconds: str) -> str:
    try:
        return repr(int(milliseconds) / 1000)
    except ValueError:
        raise UsageError(f"{path}: a timestamp is whole milliseconds (got {milliseconds[:60]!r})") from None


def _products(path: Path) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text_lines(path), start=1):
        try:
            product = json.loads(line)
        except (ValueError, RecursionError):
            product = None
        if not isinstance(product, dict):
            raise UsageError(f"{path}, line {number}: one JSON object per line (got {line[:60]!r})")
        yield number, product


def _cells(where: str, product: Mapping[str, object]) -> dict[str, str]:
    categories = product.get("categories") or []
    if not isinstance(categories, list):
        raise UsageError(f"{where}: categories are a list (got {str(categories)[:60]!r})")
    named = {name: product.get(name) for name in ("title", "store", "price")}
    texts = {name: "" if value is None else str(value) for name, value in named.items()}
    texts["categories"] = LISTS.join(str(part) for part in categories)
    return {name: " ".join(text.split())[:MAX_CELL] for name, text in texts.items()}
