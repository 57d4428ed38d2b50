"""Files to exams: DICOM archives, pictures, manifests and public data sets."""
