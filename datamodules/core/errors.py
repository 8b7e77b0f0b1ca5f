"""Errors that the user can fix. Their message is one line: what was wrong, where, and what to do."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NoReturn

# The extra of the installation that brings a package
EXTRAS = {"PIL": "images", "av": "video", "matplotlib": "compare", "pycocotools": "detection", "pytorch3d": "points"}
EXTRAS |= {"ray": "ray", "scipy": "compare", "simplejpeg": "images", "soundfile": "audio", "torchaudio": "audio"}
EXTRAS |= {
    "torchvision": "images",
    "trimesh": "points",
    "wandb": "wandb",
    "wandb_workspaces": "wandb",
    "optuna": "tune",
}
EXTRAS |= {
    "resvg_py": "drawings",
    "contourpy": "drawings",
    "pyarrow": "tables",
    "onnx": "export",
    "onnxruntime": "export",
}
EXTRAS |= {"onnxscript": "export"}


class UserError(Exception):
    """A mistake in options, configs or files. Commands print it without a stack trace and exit with status 2."""


class Parser(argparse.ArgumentParser):
    """Parser of a command line. Raises UserError for invalid options instead of printing the usage."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}: see `{self.prog} --help`")


class BadSampleError(UserError):
    """A sample that cannot be decoded. `on_bad_sample` decides whether it is skipped."""


class TooShort(BadSampleError):
    """A sample that can be decoded but is shorter than the data set requires."""


@contextmanager
def decoding(name: str) -> Iterator[None]:
    """Turns whatever a decoder raises for damaged bytes into a BadSampleError that starts with the name of the file."""
    try:
        yield
    except BadSampleError as error:
        raise type(error)(f"{name} {error}") from error
    except (UserError, ImportError):
        raise
    except Exception as error:  # each library raises its own
        raise BadSampleError(f"{name} cannot be decoded ({reason(error)})") from error


def reason(error: BaseException) -> str:
    """The first line of what an error says, or its type if it says nothing."""
    return one_line(str(error).strip().partition("\n")[0]) or type(error).__name__


def one_line(text: str) -> str:
    """The text in one line. Control characters, which could rewrite a terminal, are escaped."""
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in " ".join(text.split()))


def missing_extra(error: BaseException | None) -> str | None:
    """What to install, if an error comes from a package of an extra that is not installed."""
    while error is not None:
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package in EXTRAS:
            return f"{package} is not installed: `pip install 'bytebench[{EXTRAS[package]}]'`"
        error = error.__cause__
    return None
