"""Name servers: hostname to address and back.

Law: a record is durable on disk before it is said to be published, and what was withdrawn
answers no more. Never hands out addresses (no DHCP), and answers on the gateway's address only.
"""
