"""The clinic loop: coded reports and pictures of a result as DICOM objects."""
