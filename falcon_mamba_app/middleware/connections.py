"""How many connections may be open, whether or not they have said anything yet.

The web server itself counts connections only once they have sent a head.
"""

from __future__ import annotations

import contextlib
import ipaddress
import resource
from collections import Counter
from collections.abc import Iterable

# Beside the connections: the model's files, libraries, the log.
SPARE_FILES = 256


class Connections:
    """How many are open: `limit` together, `limit_each` from one address (0: no limit).

    Proxies and this machine bring many visitors, so `shared` networks count only together.
    """

    def __init__(self, limit: int, limit_each: int, shared: Iterable[str]) -> None:
        self._limit = limit
        self._limit_each = limit_each
        self._shared = [ipaddress.ip_network(network) for network in shared]
        self._open: Counter[str] = Counter()

    def open(self, address: str) -> bool:
        """Count one more; whether there is room for it."""
        self._open[address] += 1
        if self._limit and self._open.total() > self._limit:
            return False
        is_over = bool(self._limit_each) and self._open[address] > self._limit_each
        return not is_over or self._is_shared(address)

    def close(self, address: str) -> None:
        """One less."""
        self._open[address] -= 1
        if not self._open[address]:
            del self._open[address]

    def _is_shared(self, address: str) -> bool:
        with contextlib.suppress(ValueError):
            parsed = ipaddress.ip_address(address.partition("%")[0])
            return parsed.is_loopback or any(parsed in network for network in self._shared)
        return True  # no address: a socket of this machine


def allow_files_for(num_connections: int) -> int:
    """Raise the process's limit of open files as far as the connections need and the system
    allows; returns how many connections there is room for.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + SPARE_FILES
    if soft < wanted and hard > soft:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    return max(1, soft - SPARE_FILES)
