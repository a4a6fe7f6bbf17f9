"""How alembic reaches the database: through the connection, and in the transaction, it is given.

Batch mode, because SQLite changes a table only by making it anew.
"""

from alembic import context

import falcon_mamba_app.library.schema as schema

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=schema.metadata,
    render_as_batch=True,
    transactional_ddl=True,  # also in SQLite: its BEGIN is ours
)
context.run_migrations()
