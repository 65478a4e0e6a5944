"""Observe, decide, act, recover.

Law: the only caller of mutating ports. Every act is recorded before and after; decisions
are made by `torpor.domain`, from a snapshot of the world. The API calls `engine.service` only.
"""
