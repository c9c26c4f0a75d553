"""Arrays of floats from files of other people's: mapped, bounded, never unpickled."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from deploy.errors import UsageError

MAX_DIM = 16_384


def open_floats(path: Path) -> NDArray[np.floating]:
    """The floats (rows, dim) of an `.npy` file, mapped. Raises UsageError."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise UsageError(f"{path}: not an .npy file of numbers ({str(error).splitlines()[0][:200]})") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        form = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else "an archive"
        raise UsageError(f"{path}: floats (rows, dim) are expected (got {form})")
    check_dim(path, array.shape[1])
    return array


def check_dim(path: Path, dim: int) -> None:
    """Raises UsageError where a vector of `dim` numbers is none or too long."""
    if not 1 <= dim <= MAX_DIM:
        raise UsageError(f"{path}: a vector has 1 to {MAX_DIM} numbers (got {dim})")
