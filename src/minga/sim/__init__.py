"""A seeded world with the real agents inside; a failing seed replays exactly."""
