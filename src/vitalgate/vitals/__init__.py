"""The one standard form of what devices say: observations, the metric table, SenML."""
