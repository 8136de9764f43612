"""Rules that end a trial early: pure functions of scores."""
