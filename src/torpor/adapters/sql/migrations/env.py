"""Run by Alembic on the connection, and in the transaction, that `Database.migrate` gives it."""

from alembic import context

from torpor.adapters.sql.schema import metadata

context.configure(connection=context.config.attributes["connection"], target_metadata=metadata)
context.run_migrations()
