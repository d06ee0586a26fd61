"""Exact evaluation of a network on held-out images."""
