"""The open port, where as many connections may wait as a crowd brings at once."""

from __future__ import annotations

import socket

# The system drops what comes when so many wait, and the caller asks again a second later or more.
MAX_WAITING = 2_048


class Listener(socket.socket):
    """Lets many wait, whatever is asked for.

    asyncio has one number for two things: the connections that may wait, and those that it accepts
    in one turn of the loop. Few are accepted in a turn here, but many may wait.
    """

    def listen(self, backlog: int = MAX_WAITING, /) -> None:
        super().listen(max(backlog, MAX_WAITING))
