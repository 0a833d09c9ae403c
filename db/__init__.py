"""The node's memory: what was received, decided, graded and sent, and who may change it when.

SQL is the truth; the broker is a doorbell. Every function takes a SQLAlchemy session first and
leaves the transaction to its caller (`db.session.unit_of_work`). Row locks come before the audit
chain's lock in every function, so that two transactions cannot wait for each other.
"""
