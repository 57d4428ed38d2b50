"""Training of the default networks, and comparison of explanation methods."""
