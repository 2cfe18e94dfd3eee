"""What people look at: overlays, the report page, the console table."""
