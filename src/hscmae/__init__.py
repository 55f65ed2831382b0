"""hscmae."""
