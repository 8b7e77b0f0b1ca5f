"""Packages of the wheel: src/ becomes `bytebench`, with the configs inside, and meets no other project's `src`."""

from setuptools import find_packages, setup

setup(
    packages=[
        "bytebench",
        *(f"bytebench.{name}" for name in find_packages("src")),
        "bytebench.configs",
        *find_packages(include=["datamodules*"]),
    ],
    package_dir={"bytebench": "src", "bytebench.configs": "configs"},
    package_data={"bytebench.configs": ["**/*.yaml", "**/*.sbatch"]},
)
