"""Torpor makes room on a full cloud without killing anything.

It suspends low-priority VMs to disk, releases what they held, runs priority
VMs there, and afterwards restores the suspended ones exactly.
"""

__version__ = "0.1.0"
