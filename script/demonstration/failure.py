"""How the demo says that it can't go on."""


class DemoFailed(Exception):
    """The message is one sentence without its full stop."""
