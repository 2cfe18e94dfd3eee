"""The stream: the same stages as `dapo run`, between topics instead of folders."""
