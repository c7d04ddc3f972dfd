"""AI products as jobs of the network: each makes job specs, sends what runs inside, and reads what comes back.

Knows `minga.client` and `minga.gateway`. Does not know how a job is bought or run. Rule: what runs inside a job is a
folder of its own that imports nothing of Minga, so that a job is what its manifest says and nothing else.
"""
