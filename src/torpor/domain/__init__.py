"""What Torpor knows: words, rules and decisions.

Law: pure. No I/O, no clock, no logging, no randomness. Time, identifiers and
the state of the world come in as arguments; decisions go out as data.
"""
