"""The local page: a run's fold models loaded once, a photo at a time, on this machine alone."""

import logging
import socket
from functools import partial

from werkzeug.serving import WSGIRequestHandler, make_server

from driverwatch.errors import InputError
from driverwatch.inference.field import centre_view
from driverwatch.steps.context import Context
from driverwatch.steps.fold_models import FoldModels, fold_models
from driverwatch.terminal import say
from driverwatch.web.answers import Answers
from driverwatch.web.app import Subject, app_of

HOST = "127.0.0.1"  # this machine alone


class Handler(WSGIRequestHandler):
    """Says nothing of requests that went well, and gives up on a visitor who says nothing."""

    timeout = 60  # seconds

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        if str(code) >= "500":
            super().log_request(code, size)


def serve(context: Context, name: str, fold: int | None, port: int) -> None:
    """Serve the page of a run (`fold`: of one fold model) until Ctrl-C; port 0 takes any that is free.

    Raises:
        InputError: nothing finished, a port that is taken.
    """
    models = fold_models(context, name, fold)
    with _listening(port) as listening:
        port = listening.getsockname()[1]
        app = app_of(Subject(models.title, context.settings.title, models.classes), _answers(models))
        logging.getLogger("werkzeug").setLevel(logging.ERROR)  # its banner, and a line a request
        server = make_server(HOST, port, app, threaded=True, request_handler=Handler, fd=listening.fileno())
        say(f"{models.title}: http://{HOST}:{port} answers on this machine alone; Ctrl-C ends it")
        server.serve_forever()  # returns at Ctrl-C
    say("ended; nothing was kept")


def _listening(port: int) -> socket.socket:
    """A socket of our own: Werkzeug ends the process where a port is taken."""
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
        listening.listen()
    except OSError as error:
        listening.close()
        raise InputError(f"PORT={port}: cannot be used ({error.strerror}); choose another, or 0 for any") from error
    return listening


def _answers(models: FoldModels) -> Answers:
    from driverwatch.models import backend

    backend.start()
    from driverwatch.inference.classify import resident

    run = models.run
    networks = resident(run.settings, len(models.classes), models.mean, models.files)
    return Answers(networks, partial(centre_view, field=run.settings.input, boxes=models.boxes))
