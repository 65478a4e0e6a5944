"""`script/bench states`: how fast guests go to disk and come back, with Torpor and with what else there is.

All contenders have the same guest, data, disk, fsync and cold cache, and take turns within every round, so that a
ratio is of one moment of the disk. Nothing here decides whether a figure is good enough.
"""
