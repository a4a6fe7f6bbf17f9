"""What every request passes before the page or the API see it, and every answer after them.

Plain ASGI middleware around one application, put together in `protection`. Knows HTTP and paths;
knows no conversation and no model.
"""
