"""What the garbage collector looks at."""

from __future__ import annotations

import atexit
import gc

# When Python ends, everything is to be looked at once more: libraries complain of what is never freed.
atexit.register(gc.unfreeze)


def collect() -> None:
    """Collects all garbage, and spares the collector what is left until the next call.

    The libraries of models leave half a million objects behind that are there to stay. To look through them all takes
    a quarter of a second, in which no request gets on; the collector would do so at any time.
    """
    gc.unfreeze()
    gc.collect()
    gc.freeze()
