"""The head of the audit chain is moved by a trigger, which refuses an event out of sequence.

The role of the node's processes then needs no UPDATE on any audit table.
"""

from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None

_SQLITE = (
    """
    CREATE TRIGGER audit_events_in_sequence BEFORE INSERT ON audit_events
    WHEN NOT EXISTS (SELECT 1 FROM audit_head WHERE seq = NEW.seq - 1 AND hash = NEW.previous_hash)
    BEGIN SELECT RAISE(ABORT, 'an audit event must follow the newest one'); END
    """,
    """
    CREATE TRIGGER audit_events_move_head AFTER INSERT ON audit_events
    BEGIN UPDATE audit_head SET seq = NEW.seq, hash = NEW.hash; END
    """,
)

# Runs with the rights of the tables' owner. Names are qualified, so that no other schema of the
# caller's search path can put a table of its own in their place.
_POSTGRESQL = (
    """
    CREATE FUNCTION move_audit_head() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER SET search_path = pg_catalog, pg_temp AS
    $$ BEGIN
        UPDATE {schema}.audit_head SET seq = NEW.seq, hash = NEW.hash
         WHERE seq = NEW.seq - 1 AND hash = NEW.previous_hash;
        IF NOT FOUND THEN
            RAISE EXCEPTION 'audit event % does not follow the newest one', NEW.seq;
        END IF;
        RETURN NULL;
    END $$
    """,
    """
    CREATE TRIGGER audit_events_move_head AFTER INSERT ON audit_events
    FOR EACH ROW EXECUTE FUNCTION move_audit_head()
    """,
)


def upgrade() -> None:
    dialect = op.get_bind().dialect
    if dialect.name == "sqlite":
        for statement in _SQLITE:
            op.execute(statement)
        return
    schema = dialect.identifier_preparer.quote(str(dialect.default_schema_name))
    for statement in _POSTGRESQL:
        op.execute(statement.format(schema=schema))


def downgrade() -> None:
    if op.get_bind().dialect.name == "sqlite":
        op.execute("DROP TRIGGER audit_events_in_sequence")
        op.execute("DROP TRIGGER audit_events_move_head")
    else:
        op.execute("DROP FUNCTION move_audit_head() CASCADE")
