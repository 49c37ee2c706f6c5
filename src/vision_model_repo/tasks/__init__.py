"""What can be asked of a model and what it answers: plain data in numpy, without HTTP and without torch.

A request is about one image; several images are several requests, so that every image can be batched, timed and
cancelled by itself.
"""
