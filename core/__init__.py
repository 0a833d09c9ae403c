"""Shared by every component: settings, records, errors, UIDs, logs; imports no other package."""
