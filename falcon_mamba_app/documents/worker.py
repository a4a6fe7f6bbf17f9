"""The process that reads one document: bytes on its input, one line of JSON on its output.

`reading` starts it with an empty environment. It limits itself before it looks at the first byte.
"""

from __future__ import annotations

import json
import os
import resource
import sys

from falcon_mamba_app.documents.limits import (
    MAX_CPU_S,
    MAX_FILE_BYTES,
    MAX_MEMORY_BYTES,
    DocumentRefused,
)

TOO_MUCH = "the document takes more memory to read than a document may"
MAX_FILES = 64
MAX_RECURSION = 600


def main() -> int:
    """Read, and tell the document or why it is refused."""
    os.nice(10)  # behind everybody's replies
    _limit()
    data = sys.stdin.buffer.read(MAX_FILE_BYTES + 1)
    try:
        # After the limits, for the libraries are loaded here.
        from falcon_mamba_app.documents.kinds import document_in

        document = document_in(sys.argv[1], data)
        told = {
            "text": document.text,
            "kind": document.kind,
            "num_pages": document.num_pages,
            "note": document.note,
        }
    except DocumentRefused as error:
        told = {"refused": str(error)}
    except MemoryError:
        told = {"refused": TOO_MUCH}
    except RecursionError:
        told = {"refused": "the document is nested too deeply"}
    sys.stdout.buffer.write(json.dumps(told, ensure_ascii=True).encode())
    return 0


def _limit() -> None:
    for what, most in (
        (resource.RLIMIT_AS, MAX_MEMORY_BYTES),
        (resource.RLIMIT_CPU, MAX_CPU_S),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, MAX_FILES),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(what)[1]
        limit = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(what, (limit, limit))
    sys.setrecursionlimit(MAX_RECURSION)


if __name__ == "__main__":
    sys.exit(main())
