"""The original takes work from rank 0 until MPI ends. The stand-in only waits for a signal."""

import signal

print("worker rank waits", flush=True)
signal.pause()
