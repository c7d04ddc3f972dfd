"""The tenant's side: quotes, jobs, the runner that pays while it watches, and the SDK on top."""
