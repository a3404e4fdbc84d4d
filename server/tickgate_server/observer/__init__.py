"""Everything slow that watches the hot path. The only package that knows Prometheus."""
