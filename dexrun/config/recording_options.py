"""Table ``[recording]``: whether and how runs are recorded, and how episodes are driven."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field, field_validator

from dexrun.run_folder import episodes_of
from runtime.recording.config import RecorderOptions


class RecordingOptions(RecorderOptions):
    """What is recorded, and when an episode begins and ends.

    Attributes:
        teleop, rollout: whether teleoperation and rollouts are recorded, in episodes. grasp: the same for the
            autonomous mode, one episode per run.
        episodes: end the run once so many episodes are recorded, discarded ones not counted; 0 for no limit.
        episode_s: end an episode after this long; 0 goes on until it is ended.
        reset_s: begin the next episode so long after the one before; 0 waits until it is begun. What happens
            between two episodes is never recorded.
        task: what is done in the episodes, in words; written into each, and in rollout mode what the policy
            is asked to do. By default, the scripted operator names its object, and the autonomous mode its
            prompt.
        resume: a run whose recording is gone on with, in its own folder; its episodes are not touched.
        keys: listen to the keyboard if the program runs in a terminal.
        api: answer HTTP requests of this machine, see docs/recording.md.
        api_port: where; 0 for any free one.
    """

    teleop: bool = True
    rollout: bool = True
    grasp: bool = True
    episodes: int = Field(default=0, ge=0, le=1_000_000)
    episode_s: float = Field(default=0.0, ge=0.0)
    reset_s: float = Field(default=0.0, ge=0.0)
    task: str = Field(default="", max_length=1000)
    resume: Path | None = None
    keys: bool = True
    api: bool = True
    api_port: int = Field(default=8642, ge=0, le=65535)

    @field_validator("resume")
    @classmethod
    def _there(cls, resume: Path | None) -> Path | None:
        if resume is None:
            return None
        if not resume.is_dir():
            raise ValueError(f"no such folder: {resume}; give a run's folder, such as runs/latest")
        episodes_of(resume)
        return resume.resolve()  # now: this run is what `latest` points to as soon as it has a folder

    def wanted(self, mode: str) -> bool:
        """Whether `mode` is recorded."""
        return {"teleop": self.teleop, "rollout": self.rollout, "grasp": self.grasp}[mode]
