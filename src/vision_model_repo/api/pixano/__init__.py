"""The Pixano Inference protocol: the contract of its documentation, and those of its packages 0.6 and 0.7."""
