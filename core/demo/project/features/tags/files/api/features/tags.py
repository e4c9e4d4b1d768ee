"""Todos carry tags: single words in lower case, each at most once."""

from collections import Counter

from api.app import Refused


def register(app):
    app.field("tags", [], tags)

    @app.route("GET", "/api/tags")
    def count_tags(query, body):
        counts = Counter(tag for todo in app.store.all() for tag in todo["tags"])
        return 200, dict(sorted(counts.items()))


def tags(value):
    if not isinstance(value, list) or not all(isinstance(tag, str) for tag in value):
        raise Refused(400, "tags are a list of words")
    clean = {tag.strip().lower(): None for tag in value if tag.strip()}
    for tag in clean:
        if len(tag.split()) > 1 or len(tag) > 30:
            raise Refused(400, f"a tag is one short word, not {tag!r}")
    return list(clean)
