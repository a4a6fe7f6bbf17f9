"""`python -m falcon_mamba_app`: the same as `python app.py`."""

import sys

from falcon_mamba_app.server import main

sys.exit(main())
