"""Bringing a data set in: what runs once for it."""
