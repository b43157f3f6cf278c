"""Where the rows are, and how one pass over them is made: one file for each place.

`rows_of` makes `Rows` of the X that a caller gives. A fit uses the methods of `Rows` and knows
nothing else about the data.
"""
