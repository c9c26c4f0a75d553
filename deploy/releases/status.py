"""What is on a device, for `slimrec release status` and for scripts."""

from typing import Any

from deploy.disk import PARTIAL
from deploy.errors import UsageError
from deploy.releases.partial import read_note
from deploy.releases.pointer import Pointer
from deploy.releases.shelf import INCOMING, Installed
from deploy.releases.store import Releases


def status(releases: Releases) -> dict[str, Any]:
    """The pointer, the installed releases (newest first) and downloads under way, as JSON values.

    `state` of a release: `active`, `good` (was active, can be gone back to), `left` (was gone back from), `candidate`
    (of the experiment) or `installed`. `problem` is None, or why the pointer cannot be read.
    """
    pointer, problem = Pointer(), None
    try:
        pointer = releases.pointer()
    except UsageError as error:
        problem = error.lines[0]
    incoming = releases.root / INCOMING
    notes = [note for path in sorted(incoming.glob(f"*{PARTIAL}")) if (note := read_note(path)) is not None]
    return {
        "schema": 1,
        "active": pointer.active,
        "confirmed": pointer.confirmed,
        "tries": pointer.tries,
        "good": pointer.good,
        "left": pointer.left,
        "experiment": pointer.experiment and pointer.experiment.model_dump(mode="json"),
        "serial": pointer.serial,
        "why": pointer.why,
        "problem": problem,
        "releases": [_release(one, pointer) for one in releases.installed()],
        "downloads": [{"url": note.url, "bytes": note.synced, "total": note.total} for note in notes],
    }


def _release(release: Installed, pointer: Pointer) -> dict[str, Any]:
    candidates = pointer.experiment.digests() if pointer.experiment else set()
    active = {pointer.active} if pointer.active else set()
    states = {"active": active, "candidate": candidates, "good": set(pointer.good), "left": set(pointer.left)}
    state = next((name for name, digests in states.items() if release.digest in digests), "installed")
    return {"release": release.release, "state": state, **release.model_dump(mode="json", exclude={"version"})}
