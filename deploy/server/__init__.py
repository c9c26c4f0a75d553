"""HTTP around recommenders: `create_app` is the ASGI application, `serve` a process that runs it."""

from deploy.server.app import Options, create_app
from deploy.server.guard import Life, is_loopback, read_token
from deploy.server.logs import set_up as set_up_logs
from deploy.server.models import Models, OneModel, following, open_models
from deploy.server.process import exit_on_sigterm, listen, serve

__all__ = [
    "Life",
    "Models",
    "OneModel",
    "Options",
    "create_app",
    "exit_on_sigterm",
    "following",
    "is_loopback",
    "listen",
    "open_models",
    "read_token",
    "serve",
    "set_up_logs",
]
