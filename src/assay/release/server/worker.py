"""A worker: it loads its version, warms it, holds it against the golden outputs, and only then listens, when it is told to."""

import asyncio
import logging
import os
import socket
import sys
import time
from contextlib import suppress
from functools import partial
from typing import Any

from uvicorn.config import Config
from uvicorn.server import Server

from assay.release.security.worker import QuietWorker
from assay.release.server.files import GroupFiles, Worker, this_process, write_quickly
from assay.release.server.group import BACKLOG, Group, cores_of
from assay.release.server.handover import give, offer

logger = logging.getLogger("uvicorn.error")
_RETRY_SECONDS = 2.0
_NEVER, _AGAIN = 3, 1
"""Exit codes of a worker that cannot load: gunicorn ends with the first, and starts another after the second."""


class GroupWorker(QuietWorker):
    """gunicorn's worker class; `place` is its number among those that live, `app` the group."""

    CONFIG_KWARGS = {**QuietWorker.CONFIG_KWARGS, "backlog": BACKLOG}

    place = 0
    app: Group

    def load_wsgi(self) -> None:
        """Make the application. A version that is refused ends its group, unless it has served before."""
        files = self.app.files
        status = Worker(process=this_process(), state="loading")
        write_quickly(files.worker(os.getpid()), status)
        settings = self.app.settings
        if settings.cpus:
            os.sched_setaffinity(0, cores_of(settings.cpus, settings.serving.workers, self.place))
        try:
            from assay.release.server.make import make_application

            self.wsgi, health = make_application(settings)
        except Exception as error:
            reason = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
            self.log.error("this version is refused: %s", reason, exc_info=not isinstance(error, ValueError))
            write_quickly(
                files.worker(os.getpid()), status.model_copy(update={"state": "refused", "reason": reason})
            )
            if not files.was_ready.exists():
                sys.exit(_NEVER)
            time.sleep(_RETRY_SECONDS)
            sys.exit(_AGAIN)
        self.status = status.model_copy(update={"state": "ready", "health": health})

    async def _serve(self) -> None:
        self.config.app = self.wsgi
        server = GatedServer(self.config, self.app.files, self.status, self.wsgi)
        self._install_sigquit_handler()
        await server.serve(sockets=self.sockets)


class GatedServer(Server):
    """Accepts connections while its group's gate is open.

    When it closes, nobody is turned away: connections that are there are answered, and end with their next answer.
    """

    def __init__(self, config: Config, files: GroupFiles, status: Worker, application: Any) -> None:
        super().__init__(config)
        self._files, self._status, self._application = files, status, application
        self._listeners: list[socket.socket] = []
        self._accepting = False
        self._joining: set[asyncio.Task[Any]] = set()
        self.servers: list[asyncio.base_events.Server] = []

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        # Here: it imports torch, and the master imports this module.
        from assay.release.server.protocol import ShortProtocol

        assert sockets
        self._listeners = sockets
        self._protocol = partial(
            ShortProtocol, self._application, config=self.config, server_state=self.server_state, app_state={}
        )
        handing = offer(self._files.socket(os.getpid()))
        asyncio.get_running_loop().add_reader(handing.fileno(), give, handing, sockets[0])
        self.started = True
        self._application.closing = True
        self._follow_gate()
        self._say()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._accepting = False
        for listener in self._listeners:
            asyncio.get_running_loop().remove_reader(listener.fileno())
        await super().shutdown(sockets)
        self._application.metrics.flush()

    async def on_tick(self, counter: int) -> bool:
        self._application.metrics.flush()
        if self._follow_gate() or (self._application.closing and counter % 10 == 0):
            self._say()
        return await super().on_tick(counter)

    def _follow_gate(self) -> bool:
        """Whether anything changed."""
        accept = self._files.gate == "open"
        if accept == self._accepting:
            return False
        self._accepting = accept
        self._application.closing = not accept
        for listener in self._listeners:
            if accept:
                self._listen(listener)
            else:
                asyncio.get_running_loop().remove_reader(listener.fileno())
        return True

    def _listen(self, listener: socket.socket) -> None:
        if self._accepting:
            asyncio.get_running_loop().add_reader(listener.fileno(), self._accept, listener)

    def _accept(self, listener: socket.socket) -> None:
        """One connection at a time: a server that takes all that wait leaves the other workers few."""
        loop = asyncio.get_running_loop()
        try:
            connection, _ = listener.accept()
        except (BlockingIOError, InterruptedError, ConnectionAbortedError):
            return
        except OSError as error:  # no descriptors, no memory: later there may be
            logger.error("no connection could be accepted: %s", error)
            loop.remove_reader(listener.fileno())
            loop.call_later(_RETRY_SECONDS, self._listen, listener)
            return
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        task = loop.create_task(loop.connect_accepted_socket(self._protocol, connection))
        self._joining.add(task)
        task.add_done_callback(self._joining.discard)

    def _say(self) -> None:
        said = {"accepting": self._accepting, "connections": len(self.server_state.connections)}
        with suppress(OSError):  # a full disk is no reason to stop answering
            write_quickly(self._files.worker(os.getpid()), self._status.model_copy(update=said))
