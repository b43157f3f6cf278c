"""Where rows are, and how one pass over them is made."""
