"""The JSON API of the todo list."""
