"""One HTML file that answers from a bundle in a browser, offline: the same graphs in onnxruntime-web."""

import base64
from importlib.resources import files
from pathlib import Path

from deploy.bundle import ARCHIVE, open_bundle
from deploy.errors import UsageError

ORT, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"
"""What is taken of the npm package onnxruntime-web (MIT), from its folder `dist`."""


def write_page(bundle: Path, out: Path, onnxruntime_web: Path, key: Path | None = None) -> int:
    """Write the page `out` around the archive `bundle`; returns its size in bytes.

    onnxruntime_web: folder with `ORT` and `WASM`. key: the public key that must have signed the bundle; the page pins
    it too. The page verifies the bundle and asks its golden answers each time it is opened, and refuses as a device
    does. It holds everything it needs and fetches nothing. Raises UsageError or GateError.
    """
    if bundle.is_dir():
        raise UsageError(f"{bundle}: the page takes the archive, {ARCHIVE} (got a folder)")
    open_bundle(bundle, key)
    for name in (ORT, WASM):
        if not (onnxruntime_web / name).is_file():
            raise UsageError(
                f"{onnxruntime_web}: no {name}; npm install onnxruntime-web, and name its folder dist (got none)"
            )
    parts = {"bundle": bundle.read_bytes()}
    parts |= {"ort": (onnxruntime_web / ORT).read_bytes(), "wasm": (onnxruntime_web / WASM).read_bytes()}
    if key is not None:
        from deploy.signing import load_public, raw_public

        parts["key"] = raw_public(load_public(key))
    scripts = "\n".join(
        f'<script type="application/octet-stream" id="part-{name}">{base64.b64encode(data).decode()}</script>'
        for name, data in parts.items()
    )
    folder = files("deploy.web")
    page = folder.joinpath("page.html").read_text("utf-8").replace("<!-- PARTS -->", scripts)
    page = page.replace("/* SLIMREC */", folder.joinpath("slimrec.js").read_text("utf-8"))
    try:
        return out.write_bytes(page.encode())
    except OSError as error:
        raise UsageError(f"{out}: cannot be written ({error.strerror})") from None
