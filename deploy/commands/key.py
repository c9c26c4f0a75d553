"""`slimrec key`."""

from pathlib import Path

import click


@click.group(short_help="Make keys that sign bundles.")
def key() -> None:
    """Ed25519 keys: the private one signs bundles, devices pin the public one.

    \b
    slimrec key new vendor
    slimrec verify bundle.slim --key vendor.pub
    """


@key.command(short_help="Make a key pair.")
@click.argument("path", type=click.Path(path_type=Path))
def new(path: Path) -> None:
    """Write a private key to PATH (only you can read it) and its public key to PATH.pub.

    \b
    slimrec key new vendor
    """
    from deploy.signing import fingerprint, load_public, new_key

    public = new_key(path)
    click.echo(f"{path}: private key, keep it secret")
    click.echo(f"{public}: public key {fingerprint(load_public(public))}, for devices")
