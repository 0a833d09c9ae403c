"""Alembic environment: runs the migrations on the connection that `db.migrate` has opened."""

from alembic import context

from db.models import Base

context.configure(
    connection=context.config.attributes["connection"],
    target_metadata=Base.metadata,
    transactional_ddl=True,  # SQLite's DDL is transactional too, with explicit transactions
)
with context.begin_transaction():
    context.run_migrations()
