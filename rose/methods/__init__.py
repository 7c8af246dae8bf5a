"""Methods: a representation of rows and pairs, and a rule that turns it into one score a row."""
