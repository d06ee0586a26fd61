"""Pixels: an image of bytes, and a network's input of an image."""
