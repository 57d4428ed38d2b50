"""The HTTP side of the node: health, metrics, and objects that come by STOW-RS."""
