"""The pretraining corpus of the embedded model: short question-and-answer documents without any tool call.

What it teaches is what tool use stands on: reading a catalogue, choosing the entry that serves a request (or none),
copying spans exactly, writing a record as JSON, single digits, plain facts. What it never shows is a call: no call tag
outside rows of random tokens, and no answer that any dialect reads as a call or as a try at one.
"""

from .tasks import SHARES, Document, Turn, draw

__all__ = ["SHARES", "Document", "Turn", "draw"]
