"""Tables of results and HTML reports."""
