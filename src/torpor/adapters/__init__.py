"""Implementations of the ports, one package for each part of the world.

Law: an adapter imports domain, ports and its own third party; never the engine, never
another adapter. Only `torpor.wiring` imports adapters.
"""
