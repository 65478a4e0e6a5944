"""A real OpenStack on one machine, to try Torpor on: Debian's packages in a throwaway root and namespaces of its own.

Nothing of the machine outside the lab's folder is changed, but for one network interface while the lab is up.
It is for trying and testing, so everything has one well-known password, and nothing here is how to run a cloud.
The lab knows nothing of Torpor but how its test guest is built.
"""
