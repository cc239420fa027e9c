"""Real requests for a canary to be judged by: a table's rows, sent through the gateway at a steady rate."""

from canaryflow.local.replay.client import Replay, replay
from canaryflow.local.replay.summary import ArmSummary, ReplaySummary

__all__ = ["ArmSummary", "Replay", "ReplaySummary", "replay"]
