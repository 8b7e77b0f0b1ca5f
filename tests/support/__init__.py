"""What test files share: builders of small data and runs, and the parts of tests that run in other processes."""

from pathlib import Path

ROOT = Path(__file__).parent.parent.parent
DIGITS = str(ROOT / "configs" / "digits_perceiver.yaml")  # the config that trains fastest
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
