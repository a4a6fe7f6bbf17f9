"""What must be settled before any test module is imported."""

import tests.support.environment  # noqa: F401
