"""Errors that the user can fix. Their message is one line: what was wrong, where, and what to do."""

# The extra of the installation that brings a package
EXTRAS = {"PIL": "images", "av": "video", "matplotlib": "compare", "pycocotools": "detection", "pytorch3d": "points"}
EXTRAS |= {"ray": "ray", "scipy": "compare", "simplejpeg": "images", "soundfile": "audio", "torchaudio": "audio"}
EXTRAS |= {"torchvision": "images", "wandb": "wandb"}


class UserError(Exception):
    """A mistake in options, configs or files. Commands print it without a stack trace and exit with status 2."""


class BadSampleError(UserError):
    """A sample that cannot be decoded. `on_bad_sample` decides whether it is skipped."""


class TooShort(BadSampleError):
    """A sample that can be decoded but is shorter than the data set requires."""


def missing_extra(error: BaseException | None) -> str | None:
    """What to install, if an error comes from a package of an extra that is not installed."""
    while error is not None:
        package = (error.name or "").partition(".")[0] if isinstance(error, ModuleNotFoundError) else ""
        if package in EXTRAS:
            return f"{package} is not installed: `pip install 'bytebench[{EXTRAS[package]}]'`"
        error = error.__cause__
    return None
