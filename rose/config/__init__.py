"""What can be configured: the schema, the allowed values, and how conf/ becomes dataclasses."""

from pathlib import Path

CONF = Path(__file__).resolve().parents[2] / "conf"
