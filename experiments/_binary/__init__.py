"""The edge of every binary: flags, errors, Ctrl-C."""
