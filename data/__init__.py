"""What a transcript is, how data sets and dialects write it, and the built-in world. Imports none of the others."""

from data.python_tools import typed as typed
