"""Where rows are, and how one pass over them is made: one file a place.

`rows_of` makes `Rows` of what a caller gives; a fit knows these and nothing else of the data.
"""
