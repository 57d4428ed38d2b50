"""DICOM files: headers, the gatekeeper that accepts or refuses, and pixels."""
