"""The only package that speaks Ethereum: nodes, transactions, events, contract bindings, keys, the embedded chain."""
