"""The HTTP side of the node: health and metrics."""
