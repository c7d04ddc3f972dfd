"""A computation becomes a claim that anybody can check."""
