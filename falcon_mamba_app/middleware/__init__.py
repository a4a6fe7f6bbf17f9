"""The layers that every request and every answer passes, around the page and the API.

Plain ASGI middleware around one application; it knows HTTP and paths, no conversation and no model.
`stack` puts it together. From outside: `connections` and `limited_protocol` (the limits of a
connection), `arrival`, `refused_requests`, `root_path`, `security_headers`, `failures`,
`cross_origin` and `cross_site`, `allowed_hosts`, `visitor_limits`, `proxy_user`, `body_limits`,
`allowed_paths`, `page_bodies`, `login` with its `credentials`; `memory_return` returns the memory
of large bodies to the system.
"""
