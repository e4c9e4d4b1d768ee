"""How much of the list is done."""


def register(app):
    @app.route("GET", "/api/statistics")
    def count(query, body):
        todos = app.store.all()
        done = sum(todo["done"] for todo in todos)
        percent = round(100 * done / len(todos)) if todos else 0
        return 200, {"total": len(todos), "done": done, "percent": percent}
