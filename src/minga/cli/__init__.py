"""The command line: where the real clock, dice, keys, folders and wires are put together."""
