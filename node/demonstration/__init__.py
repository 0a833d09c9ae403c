"""The demonstration: one study from a DICOM sender through the node to a PACS."""
