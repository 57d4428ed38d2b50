"""The jobs: what a command, a notebook or a service calls."""
