"""How seldom Python looks through all objects for garbage, while every reply stands still.

Most garbage is found among young objects, in milliseconds, and freed by counting without a look.
"""

from __future__ import annotations

import gc

# Python's own numbers but for the last: all objects after 700,000 new ones, not 70,000. With the
# thousand connections of a crowd that took 28 to 80 ms of a core, and their coming brought it on.
THRESHOLDS = (700, 10, 100)


def keep_what_is_there() -> None:
    """What is imported and loaded stays: looking through it again, 700,000 objects, stopped every
    reply for 0.3 s now and then.
    """
    gc.collect()
    gc.freeze()
    gc.collect()  # or the next time would be due for a quarter of all these objects
    gc.set_threshold(*THRESHOLDS)


def let_go() -> None:
    """At exit libraries report what was not collected."""
    gc.unfreeze()
