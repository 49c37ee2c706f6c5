"""The model families: one file each, and the catalog that names them."""
