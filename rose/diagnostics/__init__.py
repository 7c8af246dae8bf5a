"""What looks suspicious about a selection, and whether its score sees what people prefer."""
