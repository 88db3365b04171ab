"""The version of the installed distribution."""

from importlib.metadata import PackageNotFoundError, version

try:
    VERSION = version("phasesweep")
except PackageNotFoundError:  # run from a checkout that is not installed
    VERSION = "0+unknown"
