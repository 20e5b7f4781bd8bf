"""Pictures, sound and pages."""
