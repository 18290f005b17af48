"""The names of the router's modes. Imports nothing, so that the command line can list them."""

MODES = ("random", "round-robin", "least-loaded", "prefix")
