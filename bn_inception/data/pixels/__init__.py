"""From encoded bytes to an image, and from an image to a network's input."""
