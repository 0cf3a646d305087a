"""An explanation as text, Markdown and one page."""
