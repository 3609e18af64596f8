"""kicourse: a graded Jupyter curriculum for people who want to become AI developers.

Importing this package is instant: everything heavy is imported where it is used.
"""

from kicourse.start import start

__all__ = ["__version__", "start"]
__version__ = "0.1.0"
