"""The report people look at: one HTML, Markdown or JSON file about a package."""
