"""Piano music as arrays: notes in seconds, beats in seconds, and cells of the beat-aligned piano roll."""
