"""What libraries read once, when they are first imported: settled before any test module is."""

from __future__ import annotations

import atexit
import os
import tempfile

# As app.py does: several test processes share few cores. Read once, when torch is imported.
os.environ.setdefault("GOMP_SPINCOUNT", "100")

import torch

# Before a test imports Gradio by itself: half of that is the writing of files that no test reads.
import falcon_mamba_app.ui  # noqa: F401

# A server finds the states of no other test's, where a test does not ask for it.
os.environ.setdefault("FALCON_MAMBA_STATE_STORE", "off")

# Triton reads this once, when it is first imported, by us or by another library.
if not torch.cuda.is_available():
    os.environ.setdefault("TRITON_INTERPRET", "1")

# Servers that tests start keep conversations; not in the folder of whoever runs the tests.
DATA = tempfile.TemporaryDirectory(prefix="falcon-mamba-tests-", ignore_cleanup_errors=True)
atexit.register(DATA.cleanup)  # otherwise Python warns of it, and warnings are errors
os.environ["XDG_DATA_HOME"] = DATA.name

# No test speaks TLS, and httpx reads the world's 140 certificates anew for each client, 48 ms of a
# core: also for each httpx.get, and in each server that a test starts. Of a folder it reads none.
os.environ["SSL_CERT_DIR"] = DATA.name
os.environ.pop("SSL_CERT_FILE", None)
