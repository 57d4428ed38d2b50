"""Training of one network per projection, or of one joint network."""
