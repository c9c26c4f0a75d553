"""A bundle's row in `result.json`."""

from pathlib import Path

from benchmarks.result import BundleInfo
from deploy.bundle import Bundle


def bundle_info(path: Path, bundle: Bundle) -> BundleInfo:
    """Path as given, digest, bytes of all that ships and of its text encoder (graph and tokenizer)."""
    text = bundle.manifest.model.text
    files = bundle.manifest.files
    total = sum(entry.stat().st_size for entry in path.iterdir()) if path.is_dir() else path.stat().st_size
    return BundleInfo(
        path=str(path),
        digest=bundle.digest,
        size_bytes=total,
        text_encoder_bytes=files[text.graph].size + files[text.tokenizer].size if text else 0,
    )
