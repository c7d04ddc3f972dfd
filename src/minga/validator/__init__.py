"""Validators: audit what providers committed to, challenge what does not follow, and serve as referees."""
