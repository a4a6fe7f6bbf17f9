"""What every request passes before the page or the API see it, and every answer after them.

Plain ASGI middleware around one application; it knows HTTP and paths, no conversation and no model.
`stack` puts it together. From outside: `connections` and `limited_protocol` (what a connection may
take), `arrival`, `root_path`, `security_headers`, `failures`, `cross_origin` and `cross_site`,
`allowed_hosts`, `visitor_limits`, `body_limits`, `allowed_paths`, `page_bodies`, `login`;
`memory_return` gives back what large bodies took.
"""
