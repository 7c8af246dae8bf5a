"""Numbers and other people's text, for people to read."""

import unicodedata

# Characters that reorder what stands around them.
BIDI = {0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)}


def number(value: float, sign: str = "") -> str:
    """Three decimals, fewer of a large number; `sign="+"` shows the sign of positive ones too."""
    digits = 3 if abs(value) < 10 else 1 if abs(value) < 1000 else 0
    return f"{value:{sign},.{digits}f}".replace("-", "−")


def counted(count: int | str, noun: str) -> str:
    """`1 seed`, `3 seeds`, `ten seeds`."""
    return f"{count} {noun}{'' if count in (1, 'one') else 's'}"


def printable(text: str) -> str:
    """`text` with control and reordering characters spelt out, what has no encoding replaced."""
    if text.isprintable() and text.isascii():
        return text
    return "".join(map(_spelt, text))


def shorten(value: object, limit: int) -> str:
    """The first `limit` characters as `printable`, and how many are left out."""
    text = str(value)
    rest = len(text) - limit
    return printable(text[:limit]) + (f" … {rest:,} more characters" if rest > 0 else "")


def _spelt(character: str) -> str:
    if character in "\n\t":
        return character
    category = unicodedata.category(character)
    if category == "Cs":  # half of a surrogate pair: no file can hold it
        return "\N{REPLACEMENT CHARACTER}"
    if category == "Cc" or ord(character) in BIDI:
        return f"[U+{ord(character):04X}]"
    return character
