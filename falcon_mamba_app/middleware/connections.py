"""Limits the number of open connections, including those that have sent nothing yet.

The web server itself counts a connection only after it has sent a head.
"""

from __future__ import annotations

import contextlib
import ipaddress
import resource
from collections import Counter
from collections.abc import Iterable

from falcon_mamba_app.errors import SettingsError
from falcon_mamba_app.rates import network

# Files beside the connections, if the system allows them: the model's files, libraries, the log.
SPARE_FILES = 256
# Files that the compilation of kernels opens at the start; and the smallest useful number of
# connections, because a page takes three.
FEWEST_SPARE_FILES = 48
FEWEST_CONNECTIONS = 16


class Connections:
    """Counts open connections: at most `limit` in all, and `limit_each` per visitor (0: no limit).

    Proxies and this machine serve many visitors, so `shared` networks have only the common limit.
    """

    def __init__(self, limit: int, limit_each: int, shared: Iterable[str]) -> None:
        self._limit = limit
        self._limit_each = limit_each
        self._shared = [ipaddress.ip_network(network) for network in shared]
        self._open: Counter[str] = Counter()

    def open(self, address: str) -> bool:
        """Count one more connection. Returns whether there is room for it."""
        visitor = network(address)
        self._open[visitor] += 1
        if self._limit and self._open.total() > self._limit:
            return False
        is_over = bool(self._limit_each) and self._open[visitor] > self._limit_each
        return not is_over or self._is_shared(address)

    def close(self, address: str) -> None:
        """Count one connection less."""
        visitor = network(address)
        self._open[visitor] -= 1
        if not self._open[visitor]:
            del self._open[visitor]

    def _is_shared(self, address: str) -> bool:
        with contextlib.suppress(ValueError):
            parsed = ipaddress.ip_address(address.partition("%")[0])
            return parsed.is_loopback or any(parsed in network for network in self._shared)
        return True  # no address: a socket of this machine


def allow_files_for(num_connections: int) -> int:
    """Raise the process's limit of open files as far as the connections need and the system
    allows. Returns the number of connections that fit. Raises SettingsError if too few fit.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = num_connections + SPARE_FILES
    if soft < wanted and hard > soft:
        soft = min(wanted, hard)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    room = soft - max(FEWEST_SPARE_FILES, min(SPARE_FILES, soft // 4))
    if room < FEWEST_CONNECTIONS:
        raise SettingsError(
            f"the system allows this process {soft} open files; at least"
            f" {FEWEST_SPARE_FILES + FEWEST_CONNECTIONS} are needed, {wanted} would be enough for"
            " all connections: raise the limit, as with ulimit -n"
        )
    return room
