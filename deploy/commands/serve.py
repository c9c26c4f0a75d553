"""`slimrec serve`."""

from pathlib import Path

import click

from deploy.errors import UsageError


@click.command(short_help="Answer over HTTP.")
@click.argument("bundle", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key that must have signed it.")
@click.option("--allow-unsigned", is_flag=True, help="Serve without checking a signature.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Of one request.")
def serve(bundle: Path, host: str, port: int, key: Path | None, allow_unsigned: bool, threads: int) -> None:
    """Verify BUNDLE, then answer POST /v1/recommend until stopped; / is a page to try it, /openapi.json the contract.

    \b
    slimrec serve runs/quickstart/bundle.slim --key vendor.pub --port 8080
    curl -d '{"history": ["50", "181"], "k": 5}' http://127.0.0.1:8080/v1/recommend
    """
    if key is None and not allow_unsigned:
        raise UsageError("serve: pass --key PUB to pin the signer, or --allow-unsigned to serve without one")
    from deploy import server
    from deploy.runtime import Recommender

    server.exit_on_sigterm()
    # The port first: a busy one is known at once, a large bundle takes a while to verify.
    with server.listen(host, port) as listener:
        recommender = Recommender.load(bundle, key, threads=threads, spin=False)
        address = f"[{host}]" if ":" in host else host
        click.echo(f"serving {recommender.release} on http://{address}:{listener.getsockname()[1]}")
        server.serve(recommender, listener)
