"""What survives a restart: journals in SQLite, and content-addressed blobs on disk."""
