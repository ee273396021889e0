"""From data to adapter, step by step: settings being edited, and what the data holds. Knows no widget."""
