"""The executable specification: pure state machines and typed messages. No clock, no dice, no I/O."""
