"""`slimrec web`."""

from pathlib import Path

import click


@click.command(short_help="Write a page that answers in a browser, offline.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.argument("page", type=click.Path(path_type=Path, dir_okay=False))
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key to pin in the page.")
@click.option(
    "--onnxruntime-web",
    type=click.Path(path_type=Path, file_okay=False),
    default=Path("node_modules/onnxruntime-web/dist"),
    show_default=True,
    help="Folder `dist` of the npm package.",
)
def web(bundle: Path, page: Path, key: Path | None, onnxruntime_web: Path) -> None:
    """Write PAGE, one HTML file around BUNDLE (a .slim file) and onnxruntime-web: opened from a disk or any web server,
    it verifies the bundle, asks its golden answers, and recommends without a server. It fetches nothing.

    \b
    npm install onnxruntime-web
    slimrec web runs/quickstart/bundle.slim quickstart.html
    """
    from deploy.web import write_page

    size = write_page(bundle, page, onnxruntime_web, key)
    click.echo(f"{page}: {size / 1e6:.1f} MB; open it in a browser")
