"""The Infer port on a Triton server.

client.py     TritonInfer: frames out in requests, answers back in order
window.py     several requests under way at once, each with a deadline and another try
shared.py     frames in memory that a server on the same host reads too
breaker.py    a server that fails again and again is left alone for a while
reconcile.py  the pack pushed again to a server that came back without it
open.py       a TritonInfer as the settings say
"""
