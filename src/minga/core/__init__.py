"""The vocabulary: money, ids, canonical encoding, errors, parameters. Imports nothing of ours, does no I/O."""
