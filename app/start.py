"""Starts gunicorn with the settings in gunicorn.conf.py; takes the arguments that gunicorn takes.

Python looks for garbage while it imports, and finds none: what is loaded is there to stay. Without
that a start takes a tenth less time, if it is off before the first import. gunicorn.conf.py
switches it on again in the workers. https://docs.python.org/3/library/gc.html#gc.freeze
"""

import gc

gc.disable()

# gunicorn ships no types; and it is imported here, because what is above has to come first.
from gunicorn.app.wsgiapp import run  # type: ignore[import-untyped]  # noqa: E402

if __name__ == "__main__":
    run(prog="gunicorn")
