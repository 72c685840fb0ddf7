"""Child processes and their isolation: namespaces, seccomp, limits."""
