"""The command line: one command a question or an act, over the API.

It talks HTTP to the daemon's socket and starts the daemon where none answers. It must never import
the engine, an adapter or the wiring, nor touch a state directory, a VM or a name server itself.
Standard output carries the answer and nothing else; progress, notices and errors go to standard error.
"""
