"""Running one stage: its other processes, full disks, and what a signal leaves behind."""

from __future__ import annotations

from pathlib import Path

from pianolm.data.kept_results import kept_items
from pianolm.file_errors import unwritable_files_told
from pianolm.pipeline.launch import other_processes
from pianolm.signals import StoppedBySignalError
from pianolm.stage import Metrics, StageContext
from pianolm.stages import find_stage
from pianolm.training.resume import LAST, checkpoint_step


def run_stage(context: StageContext) -> Metrics:
    """Runs a stage here, together with the other processes that its hardware asks for when it trains."""
    definition = find_stage(context.name)
    try:
        if not definition.trains:
            with unwritable_files_told(_place_of(context), lambda: _saved(context)):
                return definition.run(context)
        from pianolm.training.quiet import quieten  # Lightning is slow to import, and other stages do without

        quieten()
        with unwritable_files_told(_place_of(context), lambda: _saved(context)), other_processes(context):
            return definition.run(context)
    except StoppedBySignalError as stop:
        stop.sentence = _how_to_continue(context, stop.signal_name)
        raise


def _how_to_continue(context: StageContext, signal_name: str) -> str:
    """What a stage that a signal ended has saved, and how to continue."""
    stopped = f"{context.name}: ended by {signal_name}; {_saved(context)}"
    if not _has_checkpoint(context) and not kept_items(context.work):
        return f"{stopped}; the same command starts this stage again"
    if context.work.is_relative_to(context.run_dir):
        return f"{stopped}; with limited batches the same command starts this stage again"
    if context.cfg["resume"] == "never":
        return f"{stopped}; the same command without resume=never continues from there"
    return f"{stopped}; the same command continues from there"


def _place_of(context: StageContext) -> Path:
    """Where the result of a stage lies once it is complete."""
    return context.out.with_name(context.fingerprint) if find_stage(context.name).publishes else context.out


def _saved(context: StageContext) -> str:
    """What of an unfinished stage is complete."""
    if kept_items(context.work):
        return f"the files it has finished are kept in {context.work}"
    if not _has_checkpoint(context):
        return "nothing of this stage was saved"
    last = context.work / LAST
    return f"step {checkpoint_step(last)} is saved in {last}"


def _has_checkpoint(context: StageContext) -> bool:
    return find_stage(context.name).trains and (context.work / LAST).is_file()
