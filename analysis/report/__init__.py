"""A study's report: one HTML page that needs no network, and its figures."""
