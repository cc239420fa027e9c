"""canaryflow: from raw data to live traffic, gated at every step.

The names here are the ones a user's own code needs. Everything else is imported from where it lives, so that
``import canaryflow`` stays cheap.
"""

__version__ = "0.1.0"
