"""The layers that every request and every answer passes, around the page and the API.

Plain ASGI middleware around one application; it knows HTTP and paths, no conversation and no model.
`stack` puts it together. A connection: `connections` limits their number, `limited_protocol` the
time and memory of each. Its requests then pass, from outside: `turns`, `arrival`,
`refused_requests`, `root_path`, `security_headers`, `failures`, `cross_origin`, `allowed_hosts`,
`visitor_limits`, `proxy_user`, `body_limits`, `memory_return`, `cross_site`, `allowed_paths`,
`page_line`, `page_bodies`, and `login` with its `credentials`. `opening` answers until the
application is ready, and `departure` says that it leaves.
"""
