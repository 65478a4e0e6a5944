"""The REST API, version 1: routes, schemas and error codes, one noun a file.

It calls `torpor.engine.service` only, and says over HTTP what that says. It must never decide
anything, never touch a port or an adapter, and never listen on anything but a unix socket.
"""
