"""What the garbage collector looks at.

The libraries of models leave half a million objects behind that are there to stay. To look through them all takes a
quarter of a second, in which no request gets on; left alone, the collector does so at any time.
"""

from __future__ import annotations

import atexit
import gc

# When Python ends, everything is to be looked at once more: libraries complain of what is never freed.
atexit.register(gc.unfreeze)


def spare() -> None:
    """Spares the collector what is there now, until the next `collect`."""
    gc.freeze()


def collect() -> None:
    """Collects all garbage, and spares the collector what is left."""
    gc.unfreeze()
    gc.collect()
    spare()
