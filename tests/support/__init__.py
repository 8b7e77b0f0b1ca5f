"""What test files share: builders of small data and runs, and the parts of tests that run in other processes."""

from pathlib import Path

from src.suites.columns import read_table

ROOT = Path(__file__).parent.parent.parent
DIGITS = str(ROOT / "configs" / "digits_perceiver.yaml")  # the config that trains fastest
QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
SUITES = [path for path in sorted((ROOT / "configs" / "suites").glob("*.yaml")) if read_table(path) is None]
