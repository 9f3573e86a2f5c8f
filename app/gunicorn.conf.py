"""gunicorn on Cloud Run. Each setting says why it is there.

Google's advice: https://cloud.google.com/run/docs/tips/python#optimize_gunicorn
The container contract: https://cloud.google.com/run/docs/container-contract
"""

import gc
import os
from pathlib import Path

from gunicorn.config import Config  # type: ignore[import-untyped]  # gunicorn ships no types
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from web import logs

# What is loaded at the start is there to stay: looking for garbage in it makes the start longer.
# https://docs.python.org/3/library/gc.html#gc.freeze
gc.disable()

# First of all: from here on, a failure to start is one JSON entry too, not forty lines of text.
logs.configure()


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """gunicorn's messages as entries of the root logger, without what they quote of a request."""

    def setup(self, cfg: Config) -> None:
        """Set the log level from `cfg`, then drop gunicorn's plain-text handlers."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log a warning; of a request that is not HTTP, who sent it but not what it said."""
        if msg.startswith("Invalid request from ip="):
            msg = msg.partition(": ")[0]  # the rest is the line itself, perhaps with a token in it
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log an exception that Flask did not catch; the request's URL without its query."""
        super().exception(msg, *(str(arg).partition("?")[0] for arg in args), **kwargs)


logger_class = JsonLogger
# Cloud Run writes a request log of its own (status, latency, size, trace): a second line for each
# request would only cost. What the service logs carries the request's trace and appears below it.
accesslog = None

# All interfaces, at the port that Cloud Run chooses.
bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"

# Cloud Run scales by instances, so one process each; raise it together with the instance's CPUs.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# A process answers as many requests at once as it has threads; more would wait in its queue, where
# Cloud Run does not see them and starts no further instance. So workers times threads and
# containerConcurrency in service.yaml are one decision. A thread that waits (for a database, say)
# costs nothing: raise both for a service that mostly waits. Threads that compute share the CPU.
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "16"))
# The service is loaded once, before the fork: an error in it ends the start at once, and says why.
preload_app = True

# 0: gunicorn kills no worker for being quiet. Cloud Run takes the CPU away between requests, so an
# idle worker cannot report; and Cloud Run limits the time of a request itself.
timeout = 0
# Cloud Run sends SIGTERM, and SIGKILL 10 s later: finish what is in flight with time to spare.
graceful_timeout = 8
# The front end keeps its connections to the container open and reuses them. It must be the one to
# close an idle connection: if gunicorn does, a request that is already on its way meets a closed
# socket and becomes a 502. The local router's pool gives up after some seconds, Google's load
# balancers after 600 s; they advise 620 s for the server behind them
# (https://cloud.google.com/load-balancing/docs/https#timeout-keepalive-backends).
keepalive = 620

# Workers keep a file open to show that they live. In memory: the disk may be read-only, or slow.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - not a file of ours
# No control socket: it wants a writable home folder and a thread, and nobody is there to use it.
control_socket_disable = True


def when_ready(_server: object) -> None:
    """Before the first fork: what is loaded is never looked at again, and so stays shared."""
    gc.freeze()


def post_fork(_server: object, _worker: object) -> None:
    """In a worker, which answers requests: garbage is collected as ever."""
    gc.enable()
