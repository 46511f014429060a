"""The cloud: ingest, store, users and the live board that the dashboard shows."""
