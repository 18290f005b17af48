"""The router modes, by the names of `--router-mode`. Each is a module with `make(generator)`."""

#: Name on the command line, module in this folder.
MODES = {
    "random": "uniform",
    "round-robin": "round_robin",
    "least-loaded": "least_loaded",
    "prefix": "prefix",
}
