"""`script/bench`: how fast this installation is on this machine.

Measures through the doors that users have (API, name server, guests), keeps every sample, and never decides
whether a figure is good enough: tests do.
"""
