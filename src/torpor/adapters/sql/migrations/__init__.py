"""Alembic's environment and the revisions: how a database of any earlier version becomes one of this version.

Law: a released revision is never edited. It must not import `schema`, which moves on.
"""
