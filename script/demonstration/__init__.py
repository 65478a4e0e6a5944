"""What `script/demo` runs: the whole mission on one machine, with real VMs, watched from outside.

It drives a daemon of its own through the command line and the API, and believes neither: every value that
it reports was read from the guests, from the name server or from /proc. It must never touch VMs,
namespaces or folders that are not its own.
"""
