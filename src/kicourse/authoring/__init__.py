"""course/ -> exercises/ and solutions/: reading sources, building notebooks, catalogues, and the audit of checks."""
