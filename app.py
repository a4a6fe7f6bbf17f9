"""The entry of a Hugging Face Space and of `make run`: the server's life is falcon_mamba_app.server."""

import sys

from falcon_mamba_app.server import main

if __name__ == "__main__":
    sys.exit(main())
