"""There: takes work from rank 0 until MPI ends. Here: until it is ended."""

import signal

print("worker rank waits", flush=True)
signal.pause()
