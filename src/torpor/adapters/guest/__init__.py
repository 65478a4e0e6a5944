"""Guests as they are seen from outside (ARP) and from inside (their agent): implements the `Guest` port.

How a guest's agent is reached is the backend's business, and is passed in. Nothing here starts or stops a VM.
"""
