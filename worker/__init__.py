"""The worker and the housekeeper: grading of closed studies and delivery of their reports.

The database is the source of truth and the broker carries notifications: a Celery task receives one
opaque id, claims the row in the database, and every write checks that claim.
"""
