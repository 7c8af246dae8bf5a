"""Our numbers beside those of other people's packages, one file a peer (`make check-peers`)."""
