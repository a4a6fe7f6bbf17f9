"""The entry of a Space and of `make run`. The server's life is in falcon_mamba_app.server."""

import sys

from falcon_mamba_app.server import main

if __name__ == "__main__":
    sys.exit(main())
