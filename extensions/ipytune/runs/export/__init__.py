"""A run taken away: files that train the same adapter without this session."""

from ipytune.runs.export.export import FORMS, Form, export

__all__ = ["FORMS", "Form", "export"]
