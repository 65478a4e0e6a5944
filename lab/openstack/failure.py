"""How the lab says that it can't go on."""


class LabFailed(Exception):
    """The message is one sentence without its full stop; what a program said may follow on further lines."""
