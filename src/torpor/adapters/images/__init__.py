"""The store of images on this machine, for every backend that boots from files: implements the `Images` port.

It never writes an image again once it is published, and never starts a guest.
"""
