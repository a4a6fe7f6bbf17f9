"""What must be settled before any test module is imported, and in which order their files run."""

from __future__ import annotations

import pytest

import tests.support.environment  # noqa: F401

# A file's tests stay in one process, and a process that is free takes the next file: one of these
# begun last would run alone. Those that mostly wait stand beside those that mostly compute.
LONGEST = (
    "tests/ops/test_triton_devices.py",
    "tests/cluster/test_copies.py",
    "tests/benchmarks/test_benchmarks.py",
    "tests/browser/test_reload.py",
    "tests/benchmarks/test_every_script.py",
    "tests/browser/test_chat.py",
    "tests/ops/test_triton_sampling.py",
    "tests/browser/test_messages.py",
    "training/tests/test_training.py",
    "tests/service/test_local_service.py",
    "tests/browser/test_newcomer.py",
    "tests/service/test_zero_gpu.py",
    "tests/app/test_app.py",
    "tests/app/test_faults.py",
    "tests/benchmarks/test_killed.py",
    "tests/browser/test_access.py",
    "tests/benchmarks/test_soak.py",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first, the others as they stand."""
    places = {name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.nodeid.partition("::")[0], len(places)))
