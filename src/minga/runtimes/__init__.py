"""Drivers that run a job's commands on this machine. Import the modules by name: the supervisor must start fast."""
