"""The stages of a run, one file each; modules with a leading underscore are what they share."""
