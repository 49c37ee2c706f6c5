"""Images, masks, boxes and depth in and out of their wire and file formats: pure functions on numpy arrays."""
