"""The user's own data: a path, or a folder below `$SLIMREC_DATA`."""

import os
from pathlib import Path
from typing import Literal

from pydantic import Field, field_serializer, field_validator

from compress.stage import Entry
from deploy.errors import UsageError

DATA_ROOT = "$SLIMREC_DATA"


class Files(Entry):
    """The user's own data: a folder, or an interactions file with the items beside it.

    A path may start with `$SLIMREC_DATA`, the folder that holds a machine's data sets; no other variable is expanded.
    In a cache key the data's content stands for the path; its name alone is kept, because reports show it.
    """

    name: Literal["files"] = "files"
    path: str = Field(min_length=1, max_length=4096)

    @field_validator("path")
    @classmethod
    def _one_variable_at_the_start(cls, value: str) -> str:
        if (value.startswith("$") and not _below_root(value)) or DATA_ROOT in value[1:]:
            raise ValueError(f"a path may start with {DATA_ROOT}/ and names no other variable")
        return value

    @field_serializer("path")
    def _name_alone(self, value: str) -> str:
        return Path(value).stem

    def located(self) -> Path:
        """The path on this machine. Raises UsageError where `$SLIMREC_DATA` is unset or holds no such data set."""
        if not self.path.startswith(DATA_ROOT):
            return Path(self.path)
        below, root = _below_root(self.path), data_root()
        if root is not None and (root / below).exists():
            return root / below
        name = Path(below).stem
        raise UsageError(
            f"{self.path}: set {DATA_ROOT[1:]} to the folder that holds {below}, with {name}.inter and {name}.item "
            "(RecBole atomic files) or interactions.csv and items.csv inside; docs/DATA.md says where data sets come "
            f"from (got {f'{DATA_ROOT[1:]} unset' if root is None else f'{root}, without {below}'})"
        )


def data_root() -> Path | None:
    """The folder named by `$SLIMREC_DATA`; None where it is unset or empty."""
    root = os.environ.get(DATA_ROOT[1:])
    return Path(root).expanduser() if root else None


def _below_root(path: str) -> str:
    return path.removeprefix(DATA_ROOT).strip("/") if path.startswith(f"{DATA_ROOT}/") else ""
