"""The operator's command line, the demonstration and the embedded one-machine stack.

``node`` starts receiver, worker and housekeeper as processes; it imports ``core`` and ``db`` only.
"""
