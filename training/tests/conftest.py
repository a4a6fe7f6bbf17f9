"""The settings that the app's tests have too, before any test module is imported."""

import tests.support.environment  # noqa: F401
