"""The page of the todo list and the little server that hands it out."""
