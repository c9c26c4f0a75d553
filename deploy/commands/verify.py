"""`slimrec verify`."""

import dataclasses
import json
from pathlib import Path

import click


@click.command(short_help="Check a bundle's files, signature and golden answers.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key that must have signed it.")
@click.option("--files-only", is_flag=True, help="Do not run the model on its golden cases.")
@click.option("--json", "as_json", is_flag=True, help="Print one line of JSON.")
def verify(bundle: Path, key: Path | None, files_only: bool, as_json: bool) -> None:
    """Check every byte of BUNDLE (a folder or a .slim file), then ask the model its golden answers.

    Without --key the answer is "integrity only": the files are those that the manifest names, but anybody may have
    written the manifest. Exit code 3 means a wrong byte, signature or answer; 2 an unreadable or malformed bundle.

    \b
    slimrec verify runs/quickstart/bundle.slim --key vendor.pub
    """
    from deploy.bundle import describe, open_bundle

    opened = open_bundle(bundle, key)
    tested: list[str] = []
    if not files_only:
        from deploy.runtime import Recommender

        for precision in sorted(opened.manifest.model.precisions):
            recommender = Recommender(opened, precision=precision)
            recommender.self_test()
            tested.append(precision)
        if opened.manifest.model.text:
            recommender.text_vectors([])
            tested.append("text")
    found = describe(opened)
    if as_json:
        click.echo(json.dumps({**dataclasses.asdict(found), "golden": tested}))
        return
    signed = f"signed by {found.signed_by}" if found.signed_by else "integrity only (no --key given)"
    click.echo(f"{bundle}: {signed}")
    click.echo(f"  name    {found.name}")
    click.echo(f"  digest  {found.digest}")
    click.echo(f"  files   {found.files}, {found.size_bytes / 1e6:.2f} MB")
    click.echo(f"  golden  {', '.join(tested) + ' as recorded' if tested else 'not asked'}")
