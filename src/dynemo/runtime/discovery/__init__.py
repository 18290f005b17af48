"""Which instances and models exist: `base` is the port, `discovery` what the rest of the program
uses, `etcd`, `file` and `memory` the adapters."""
