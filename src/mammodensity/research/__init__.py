"""How the default networks are trained, and how explanation methods are compared."""
