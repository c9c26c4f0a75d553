"""`slimrec release`."""

import json
import re
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from deploy.errors import UsageError

if TYPE_CHECKING:
    from deploy.releases import Releases
    from deploy.releases.fetch import Progress
    from deploy.releases.shelf import Installed

_DIR = click.argument("folder", metavar="DIR", type=click.Path(path_type=Path, file_okay=False))
_JSON = click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")


@click.group(short_help="Install, update and roll back bundles on a device.")
def release() -> None:
    """Releases in DIR: verified before they are visible, switched in one step, gone back from.

    \b
    slimrec release install /var/lib/slimrec https://example.com/bundle.slim --key vendor.pub
    slimrec release activate /var/lib/slimrec shop@3f2a9c1d77e0
    slimrec serve /var/lib/slimrec --key vendor.pub
    """


@release.command(short_help="Fetch and verify a bundle; the active release stays.")
@_DIR
@click.argument("source", metavar="URL_OR_PATH")
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key that must have signed it.")
@click.option("--allow-unsigned", is_flag=True, help="Install without checking a signature.")
@click.option("--activate", "at_once", is_flag=True, help="Make it the active release, unless it was rolled back.")
@click.option("--keep", type=click.IntRange(1, 100), default=4, show_default=True, help="Releases that stay on disk.")
@click.option(
    "--max-mb", type=click.IntRange(1, 5000), default=4098, show_default=True, help="Refuse a longer download."
)
@_JSON
def install(
    folder: Path,
    source: str,
    key: Path | None,
    allow_unsigned: bool,
    at_once: bool,
    keep: int,
    max_mb: int,
    as_json: bool,
) -> None:
    """Fetch the bundle at URL_OR_PATH (http, https, a .slim file or a folder) and install it in DIR.

    Its signature, every byte and its golden answers on this device are checked before it is visible. A download that
    broke goes on where it stopped when the command is repeated.

    \b
    slimrec release install /var/lib/slimrec bundle.slim --key vendor.pub --activate
    """
    if key is None and not allow_unsigned:
        raise UsageError("release install: pass --key PUB to pin the signer, or --allow-unsigned to take any bundle")
    from deploy.releases import Releases

    releases = Releases(folder)
    installed = releases.install(source, key, keep=keep, most=max_mb << 20, progress=_progress())
    active = at_once and releases.update(installed)
    if as_json:
        return click.echo(json.dumps({"release": installed.release, "active": active, **_plain(installed)}))
    click.echo(f"{installed.release}: {'active' if active else 'installed'}, {_signer(installed.signed_by)}")
    if at_once and not active:
        click.echo(f"{installed.release}: it was gone back from, so only `release activate` activates it", err=True)
    return None


@release.command(short_help="Make an installed release the active one.")
@_DIR
@click.argument("wanted", metavar="RELEASE")
def activate(folder: Path, wanted: str) -> None:
    """Switch DIR to RELEASE (name@digest, or the first digits of the digest), if it is well on this device.

    Its bytes and golden answers are checked again; where they fail the active release stays (exit code 3).

    \b
    slimrec release activate /var/lib/slimrec 3f2a9c1d77e0
    """
    from deploy.releases import Releases

    click.echo(f"{Releases(folder).activate(wanted).release}: active")


@release.command(short_help="Go back to the release that was active before.")
@_DIR
def rollback(folder: Path) -> None:
    """Switch DIR to the release that was active before, or the last one before it that is well on this device.

    \b
    slimrec release rollback /var/lib/slimrec
    """
    from deploy.releases import Releases

    click.echo(f"{Releases(folder).rollback().release}: active")


@release.command(short_help="Answer some users by another release, or ask it too.")
@_DIR
@click.argument("name", required=False)
@click.option("--arm", multiple=True, metavar="RELEASE=PERCENT", help="Answer this share of the users by it.")
@click.option(
    "--shadow", multiple=True, metavar="RELEASE=PERCENT", help="Ask it too for this share; answers are logged."
)
@click.option("--stop", is_flag=True, help="End the experiment: the active release answers all.")
def experiment(folder: Path, name: str | None, arm: tuple[str, ...], shadow: tuple[str, ...], stop: bool) -> None:
    """Begin the experiment NAME beside the active release of DIR, in place of one under way.

    A user keeps a release for as long as NAME and the shares stay: it is drawn by a hash of the request's `user`.

    \b
    slimrec release experiment /var/lib/slimrec november --arm 3f2a9c1d77e0=10
    """
    from deploy.releases import Releases
    from deploy.releases.split import Experiment

    if stop is (name is not None) or stop is bool(arm or shadow):
        raise UsageError("release experiment: pass NAME with --arm or --shadow, or --stop alone")
    releases = Releases(folder)
    if name is None:
        releases.experiment(None)
        return click.echo("no experiment: the active release answers all")
    from deploy.manifest import canonical_json, parse_record

    wanted = {"name": name, "arms": _shares(releases, arm), "shadows": _shares(releases, shadow)}
    releases.experiment(parse_record(Experiment, canonical_json(wanted), "experiment"))
    return click.echo(f"{name}: begun")


@release.command(short_help="Show what is installed and active.")
@_DIR
@_JSON
def status(folder: Path, as_json: bool) -> None:
    """Show the releases of DIR, the active one, those to go back to, and downloads that wait to be finished.

    \b
    slimrec release status /var/lib/slimrec
    """
    from deploy.releases import Releases
    from deploy.releases.status import status as status_of

    found = status_of(Releases(folder))
    if as_json:
        return click.echo(json.dumps(found, ensure_ascii=False))
    for one in found["releases"]:
        at = datetime.fromtimestamp(one["at"], UTC).strftime("%Y-%m-%d %H:%M")
        mb = one["size_bytes"] / 1e6
        click.echo(f"{one['state']:>9}  {one['release']}  {at} UTC  {mb:.2f} MB  {_signer(one['signed_by'])}")
    for download in found["downloads"]:
        click.echo(f"  partial  {download['url']}  {download['bytes']} of {download['total'] or '?'} bytes")
    experiment = found["experiment"]
    if experiment:
        click.echo(f"experiment {experiment['name']}: {_told(experiment)}")
    click.echo(found["problem"] or found["why"])
    return None


def _plain(installed: "Installed") -> dict[str, Any]:
    plain: dict[str, Any] = installed.model_dump(mode="json", exclude={"version"})
    return plain


def _signer(signed_by: str | None) -> str:
    return f"signed by {signed_by}" if signed_by else "unsigned"


def _told(experiment: dict[str, Any]) -> str:
    shares = [("arm", *pair) for pair in experiment["arms"].items()]
    shares += [("shadow", *pair) for pair in experiment["shadows"].items()]
    return ", ".join(f"{kind} {digest[:12]} {share / 100:g} %" for kind, digest, share in shares)


def _shares(releases: "Releases", given: tuple[str, ...]) -> dict[str, int]:
    """RELEASE=PERCENT, two decimals at most -> digest -> slots of 10,000."""
    shares: dict[str, int] = {}
    for pair in given:
        wanted, _, percent = pair.rpartition("=")
        if not wanted or not re.fullmatch(r"\d{1,3}(\.\d{1,2})?", percent):
            raise UsageError(f"release experiment: a share is RELEASE=PERCENT, two decimals at most (got {pair!r})")
        digest = releases.named(wanted).digest
        if digest in shares:
            raise UsageError(f"release experiment: one share per release (got {wanted} twice)")
        shares[digest] = round(float(percent) * 100)
    return shares


def _progress() -> "Progress | None":
    """Shows a download on a terminal; silent in a pipe."""
    if not sys.stderr.isatty():
        return None

    def show(done: int, total: int | None) -> None:
        of = f" of {total / 1e6:.1f}" if total else ""
        end = "\n" if done == total else ""
        print(f"\r{done / 1e6:.1f}{of} MB{end}", end="", file=sys.stderr, flush=True)

    return show
