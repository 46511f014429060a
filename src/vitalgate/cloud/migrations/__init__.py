"""The store's schema, one file a version; run by `vitalgate.cloud.store.migrate`."""
