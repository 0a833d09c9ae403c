"""From a closed study to a delivered report: Celery tasks, pipeline stages, delivery.

SQL is the truth and the broker a doorbell: a task carries one opaque id, and every effect is
guarded by the claim that the database gave for it.
"""
