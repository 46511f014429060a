"""The cloud's pages: dashboard, sign-in, administration, read-only JSON, metrics.

`vitalgate.cloud.web.app.create_app` makes the application, `vitalgate.cloud.web.server.serve` runs it.
"""
