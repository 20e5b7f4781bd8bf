"""The dynamics model: velocities of all notes from all notes, past and to come."""
