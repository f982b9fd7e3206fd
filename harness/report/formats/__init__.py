"""How a report is written: text, Markdown, LaTeX, JSON."""
