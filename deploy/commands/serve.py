"""`slimrec serve`."""

from contextlib import ExitStack
from pathlib import Path
from typing import Literal

import click

from deploy.errors import UsageError


@click.command(short_help="Answer over HTTP.")
@click.argument("source", metavar="BUNDLE_OR_RELEASES", type=click.Path(path_type=Path))
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, show_default=True, help="0 takes a free one.")
@click.option("--key", type=click.Path(path_type=Path), metavar="PUB", help="Public key that must have signed it.")
@click.option("--allow-unsigned", is_flag=True, help="Serve without checking a signature.")
@click.option("--token-file", type=click.Path(path_type=Path), metavar="FILE", help="Callers must send this token.")
@click.option("--allow-anonymous", is_flag=True, help="Listen beyond this machine without a token.")
@click.option("--state", type=click.Path(path_type=Path), metavar="DIR", help="Where cold items are kept.")
@click.option("--feedback", type=click.Path(path_type=Path), metavar="DIR", help="Log what is shown and done there.")
@click.option(
    "--feedback-mb", type=click.IntRange(16, 1 << 20), default=256, show_default=True, help="The log's most; oldest go."
)
@click.option("--retain-days", type=click.FloatRange(0.01), help="Older feedback is deleted.")
@click.option("--precision", help="Graph that answers; otherwise the fastest here that is no worse is measured.")
@click.option("--threads", type=click.IntRange(1, 256), default=1, show_default=True, help="Of one request.")
@click.option("--workers", type=click.IntRange(1, 256), help="Requests answered at once; one per core by default.")
@click.option("--queue", type=click.IntRange(0, 10_000), default=64, show_default=True, help="Requests that may wait.")
@click.option("--timeout", type=click.FloatRange(0.01, 600), default=5.0, show_default=True, help="Seconds, of one.")
@click.option(
    "--log",
    "log_format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    help="json: each request.",
)
def serve(
    source: Path,
    host: str,
    port: int,
    key: Path | None,
    allow_unsigned: bool,
    token_file: Path | None,
    allow_anonymous: bool,
    state: Path | None,
    feedback: Path | None,
    feedback_mb: int,
    retain_days: float | None,
    precision: str | None,
    threads: int,
    workers: int | None,
    queue: int,
    timeout: float,
    log_format: Literal["text", "json"],
) -> None:
    """Verify a bundle, then answer POST /v1/recommend until stopped; / is a page to try it, /openapi.json the contract.

    Of a folder that `slimrec release` keeps, what is active there answers, and what becomes active while it runs.

    \b
    slimrec serve runs/quickstart/bundle.slim --key vendor.pub --port 8080
    slimrec serve /var/lib/slimrec --key vendor.pub --feedback /var/lib/slimrec/feedback
    curl -d '{"history": ["50", "181"], "k": 5}' http://127.0.0.1:8080/v1/recommend
    """
    if key is None and not allow_unsigned:
        raise UsageError("serve: pass --key PUB to pin the signer, or --allow-unsigned to serve without one")
    from deploy import server
    from deploy.choice import fastest
    from deploy.feedback import FeedbackLog, Limits
    from deploy.journal import ItemJournal
    from deploy.runtime import Recommender
    from deploy.server.workers import cores

    local = server.is_loopback(host)
    if not local and token_file is None and not allow_anonymous:
        raise UsageError(
            f"serve: pass --token-file FILE to be reached from other machines, or --allow-anonymous (got host {host})"
        )
    token = None if token_file is None else server.read_token(token_file)
    server.exit_on_sigterm()
    server.set_up_logs(log_format)
    # The port first: a busy one is known at once, a large bundle takes a while to verify.
    with server.listen(host, port) as listener:
        journal = ItemJournal(state)
        if journal.damaged_lines:
            click.echo(f"{state}: {journal.damaged_lines} damaged lines left out, the file as it was kept", err=True)

        def load(bundle: Path) -> Recommender:
            found = Recommender.load(bundle, key, precision=precision, threads=threads, spin=False, journal=journal)
            return fastest(found) if precision is None else found

        models = server.open_models(source, load)
        address = f"[{host}]" if ":" in host else host
        release = models.model_for(None).release
        click.echo(f"serving {release} on http://{address}:{listener.getsockname()[1]}")
        life = server.Life()
        options = server.Options(workers=workers or cores(), waiting=queue, seconds=timeout, token=token, local=local)
        with ExitStack() as until_stopped:
            limits = Limits(max_bytes=feedback_mb << 20, retain_days=retain_days)
            log = None if feedback is None else until_stopped.enter_context(FeedbackLog(feedback, limits))
            until_stopped.enter_context(server.following(models))
            server.serve(server.create_app(models, options, log, life), listener, life)
