"""The laboratory: whole worlds in virtual time, and the counting that says what became of what devices said."""
