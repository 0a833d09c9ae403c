"""The database: tables, state transitions, claims, outbox, audit trail, views and queries.

The database is the only source of truth; the broker carries notifications. Every function takes a
SQLAlchemy session first and leaves the transaction to its caller (`db.session.unit_of_work`). Every
function takes row locks before the lock of the audit chain, so that transactions cannot deadlock.
"""
