"""Start gunicorn with the settings in gunicorn.conf.py. Takes gunicorn's arguments.

While Python imports modules, garbage collection finds nothing, because modules stay loaded. Turned
off before the first import, it makes a start a tenth faster. gunicorn.conf.py turns it on again in
the workers. https://docs.python.org/3/library/gc.html#gc.freeze
"""

import gc

gc.disable()

# gunicorn ships no types. It is imported here because gc.disable() has to come first.
from gunicorn.app.wsgiapp import run  # type: ignore[import-untyped]  # noqa: E402

if __name__ == "__main__":
    run(prog="gunicorn")
