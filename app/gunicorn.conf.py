"""gunicorn on Cloud Run. A comment gives the reason for each setting.

Google's advice: https://cloud.google.com/run/docs/tips/python#optimize_gunicorn
The container contract: https://cloud.google.com/run/docs/container-contract
"""

import gc
import os
from pathlib import Path

from gunicorn.config import Config  # type: ignore[import-untyped]  # gunicorn ships no types
from gunicorn.glogging import Logger  # type: ignore[import-untyped]
from web import logs

# First, so that a failure to start is also one JSON entry, not forty lines of text.
logs.configure()


class JsonLogger(Logger):  # type: ignore[misc]  # gunicorn ships no types
    """Sends gunicorn's messages to the root logger, without quoted parts of a request."""

    def setup(self, cfg: Config) -> None:
        """Set the log level from `cfg`, then drop gunicorn's plain-text handlers."""
        super().setup(cfg)
        self.error_log.handlers.clear()
        self.error_log.propagate = True

    def warning(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log a warning. For a request that is not HTTP, name its sender but not its content."""
        if msg.startswith("Invalid request from ip="):
            msg = msg.partition(": ")[0]  # the rest is the request line, which may hold a token
        super().warning(msg, *args, **kwargs)

    def exception(self, msg: str, *args: object, **kwargs: object) -> None:
        """Log an exception that Flask did not catch, with the request's URL but not its query."""
        super().exception(msg, *(str(arg).partition("?")[0] for arg in args), **kwargs)


logger_class = JsonLogger
# Cloud Run writes its own request log (status, latency, size, trace), so a second line per request
# would only cost. The service's log entries carry the request's trace and appear below it.
accesslog = None

# All interfaces, on the port that Cloud Run chooses.
bind = f"0.0.0.0:{os.environ.get('PORT', '8080')}"

# Cloud Run scales by instances, so each has one process. Raise this together with the CPUs.
workers = int(os.environ.get("WEB_CONCURRENCY", "1"))
# A process answers as many requests at once as it has threads. More requests would wait in its
# queue, where Cloud Run does not see them and starts no new instance. So decide on workers times
# threads and on containerConcurrency in service.yaml together. A thread that waits, for example
# for a database, costs nothing: raise both for such a service. Threads that compute share the CPU.
worker_class = "gthread"
threads = int(os.environ.get("WEB_THREADS", "16"))
# Load the service once, before the fork, so that an error in it ends the start at once.
preload_app = True

# 0: gunicorn does not kill a quiet worker. Cloud Run takes the CPU away between requests, so an
# idle worker cannot report. Cloud Run itself limits the time of a request.
timeout = 0
# Cloud Run sends SIGTERM, and SIGKILL 10 s later. Finish the current requests with time to spare.
graceful_timeout = 8
# The front end reuses its connections to the container, and it must be the one to close an idle
# connection. If gunicorn closed it, a request on its way would meet a closed socket and become a
# 502. The local router gives up after some seconds, Google's load balancers after 600 s. Google
# recommends 620 s for the server behind them
# (https://cloud.google.com/load-balancing/docs/https#timeout-keepalive-backends).
keepalive = 620

# Workers touch a file to show that they are alive. Keep it in memory: the disk may be read-only.
worker_tmp_dir = "/dev/shm" if Path("/dev/shm").is_dir() else None  # noqa: S108 - gunicorn makes a private file there
# No control socket: it needs a writable home folder and a thread, and no one uses it here.
control_socket_disable = True


def when_ready(_server: object) -> None:
    """Exempt the loaded modules from collection before the first fork, so that they stay shared."""
    gc.freeze()


def post_fork(_server: object, _worker: object) -> None:
    """Turn garbage collection on again in each worker; see start.py."""
    gc.enable()
