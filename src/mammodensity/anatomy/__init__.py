"""Anatomy in a mammogram: breast outline, pectoral muscle, dense tissue, percent density, and the network input."""
