"""The cloud's store: relational (SQLite first), sealed, and the only judge of what counts as delivered."""
