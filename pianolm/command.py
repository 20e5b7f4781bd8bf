"""The program `pianolm`: what `python -m pianolm.run` does."""

from __future__ import annotations

from pianolm.signals import end_at_signals


def main() -> None:
    """Runs the command line; a signal in the second that its imports take ends in one line."""
    end_at_signals()
    from pianolm.run import cli

    cli()
