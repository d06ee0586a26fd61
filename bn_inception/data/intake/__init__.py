"""Preparing and auditing a data set, which is done once."""
