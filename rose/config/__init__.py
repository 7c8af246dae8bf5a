"""What can be configured: the schema, the allowed values, and how conf/ becomes dataclasses."""

from pathlib import Path

CONF = (Path(__file__).parents[1] / "conf").resolve()  # in a clone a link to conf/, in a wheel a folder
