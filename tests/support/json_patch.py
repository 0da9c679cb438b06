"""The part of JSON Patch (RFC 6902) that the doctor's cures need."""

from __future__ import annotations


def applied(document, operations):
    """*document* after a JSON Patch of `add`, `replace` and `remove`, by RFC 6902."""
    for operation in operations:
        *above, last = [
            key.replace("~1", "/").replace("~0", "~") for key in operation["path"].split("/")[1:]
        ]
        place = document
        for key in above:
            place = place[int(key) if isinstance(place, list) else key]
        last = int(last) if isinstance(place, list) else last
        if operation["op"] == "remove":
            del place[last]
        elif operation["op"] == "add" and isinstance(place, list):
            place.insert(last, operation["value"])
        else:
            place[last] = operation["value"]
    return document
