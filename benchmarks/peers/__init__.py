"""Other servers that do the same work as this project's does with a model that does nothing."""
