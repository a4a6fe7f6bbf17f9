"""`python -m falcon_mamba_app`, and `falcon-mamba` once installed: the same as `python app.py`."""

import sys

from falcon_mamba_app.server import main

if __name__ == "__main__":
    sys.exit(main())
